#!/bin/sh
# vmrnn-d-motion, from nothing: sh examples/training/train_motion.sh FOLDER_OF_CLIPS
# Two processes of one CPU thread each. Of the bundled weights, the card says which parts they had.
set -e
train() { # NAME OPTION...
    name=$1
    shift
    torchrun --nproc-per-node=2 -m vmrnn_cli train --preset vmrnn-d-motion --threads 1 --dtype bfloat16 \
        --out "runs/$name" "$@"
}
train motion-1 --data "$1" --init none --max-time 40m --lr 0.004
train motion-2 --data "$1" --init runs/motion-1/best --max-time 72m --lr 0.003 --seed 7
