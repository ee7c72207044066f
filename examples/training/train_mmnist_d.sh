#!/bin/sh
# vmrnn-d-mmnist-small, as it was trained: sh examples/training/train_mmnist_d.sh FOLDER_WITH_MNIST_IDX_FILES
# 158 minutes on one CPU thread, 487 on two, and 115 on two of a slower machine. bfloat16 was faster than float32 by a third on
# the first, which multiplies in it (AVX512-BF16), and ten times slower on the second, which does not: leave it out there.
set -e
here=$(dirname "$0") data=$1 preset="--preset vmrnn-d-mmnist-small"
settings() { # NUMBER CURRICULUM PLATEAU [BURN_IN [EMA [EVAL_CLIPS]]]
    printf 'curriculum = %s\nplateau = %s\nburn_in = %s\nema = %s\neval_clips = %s\n' \
        "$2" "$3" "${4:-0}" "${5:-0.998}" "${6:-64}" > "mmnist-d-$1.toml"
    echo "--config mmnist-d-$1.toml --out runs/mmnist-d-$1"
}
averaged() { # NUMBER
    python "$here/averaged.py" "runs/mmnist-d-$1" "runs/mmnist-d-$1/averaged"
    echo "--init runs/mmnist-d-$1/averaged"
}
one() { vmrnn train --data "$data" $preset --threads 1 "$@"; }
two() { torchrun --nproc-per-node=2 -m vmrnn_cli train --data "$data" $preset --threads 1 "$@"; }

one --max-time 80m --eval-every 250 --out runs/mmnist-d-1
one --init runs/mmnist-d-1/best --lr 0.006 --seed 1 --max-time 28m --eval-every 200 $(settings 2 '[]' 0.2)

# Short clips, at a rate that stays: a batch of 8 got no further, one of 16 and then 32 did.
one --init runs/mmnist-d-2/best --seed 3 --steps 2569 $(settings 3 '[[1.0, 6, 2]]' 1.0)
one $(averaged 3) --seed 5 --batch-size 16 --dtype bfloat16 --steps 600 $(settings 4 '[[1.0, 6, 2]]' 1.0)
two $(averaged 4) --seed 6 --batch-size 32 --dtype bfloat16 --steps 705 $(settings 5 '[[1.0, 6, 2]]' 1.0)
one $(averaged 5) --seed 7 --batch-size 16 --dtype bfloat16 --lr 0.005 --steps 639 $(settings 6 '[[1.0, 8, 3]]' 1.0)

# The whole length, at a falling rate.
two $(averaged 6) --seed 8 --batch-size 32 --dtype bfloat16 --max-time 72m --eval-every 200 \
    $(settings 7 '[[0.2, 8, 4]]' 0.35)

# Once more, short clips first; from part 7 in half precision, as it was bundled.
two --init runs/mmnist-d-7/best --seed 9 --batch-size 32 --max-time 115m --eval-every 250 \
    $(settings 8 '[[0.28, 6, 2], [0.42, 8, 4]]' 0.45)

# And again, from part 8 in half precision, over longer clips from the beginning, and without a loss where nothing tells
# yet how the digits move.
two --init runs/mmnist-d-8/best --lr 0.005 --seed 10 --batch-size 32 --dtype bfloat16 --max-time 112m --eval-every 400 \
    $(settings 9 '[[0.4, 6, 6], [0.7, 6, 10]]' 0.25 2)

# The same once more, with more of the time on the longer clips.
two --init runs/mmnist-d-9/best --lr 0.005 --seed 12 --batch-size 32 --dtype bfloat16 --max-time 138m --eval-every 400 \
    $(settings 10 '[[0.35, 6, 6], [0.8, 6, 10]]' 0.25 2)

# At a low rate from the beginning.
two --init runs/mmnist-d-10/best --lr 0.0007 --seed 13 --batch-size 32 --dtype bfloat16 --max-time 11m \
    $(settings 11 '[]' 0.3 2 0.99)

# And for longer.
two --init runs/mmnist-d-11/best --lr 0.001 --seed 14 --batch-size 32 --dtype bfloat16 --max-time 142m --eval-every 400 \
    $(settings 12 '[]' 0.2 2 0.998 256)
