#!/bin/sh
# vmrnn-b-natural, as it was trained: sh examples/train_natural.sh FOLDER_OF_CLIPS
# Five parts on one CPU thread: 6 minutes; the first 10 (to step 400) of a run of 86; 10 minutes from there; the first 21
# (to step 800) of a run of 100; 28 minutes from there.
set -e
part() { # NUMBER STOP_AFTER OPTION...: with the settings on standard input
    number=$1 stop=$2
    shift 2
    cat > "natural-$number.toml"
    timeout "$stop" vmrnn train --preset vmrnn-b-natural --config "natural-$number.toml" --threads 1 --eval-every 200 \
        --out "runs/natural-$number" "$@" || [ $? = 124 ] # stopped in time, with a checkpoint
}
part 1 10m --data "$1" --max-time 6m --context 5 --horizon 5 <<'END'
size = 64
crop = 0
loss = "mse"
curriculum = []
END
part 2 11m --data "$1" --max-time 86m --init runs/natural-1/best <<'END'
loss = "mse+0.02*ssim"
curriculum = [[0.1, 6, 6], [0.35, 8, 10]]
END
part 3 15m --data "$1" --max-time 10m --init runs/natural-2/best --lr 0.005 <<'END'
plateau = 0.1
ema = 0.99
END
part 4 22m --data "$1" --max-time 100m --init runs/natural-3/best --lr 0.006 </dev/null
part 5 35m --data "$1" --max-time 28m --init runs/natural-4/best --lr 0.005 --seed 1 <<'END'
plateau = 0.0
ema = 0.99
END
python "$(dirname "$0")/temper.py" runs/natural-5/best --data "$1" --out runs/natural
