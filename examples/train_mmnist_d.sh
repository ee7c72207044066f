#!/bin/sh
# vmrnn-d-mmnist-small, as it was trained: sh examples/train_mmnist_d.sh FOLDER_WITH_MNIST_IDX_FILES
# 108 minutes on one CPU thread.
set -e
vmrnn train --data "$1" --preset vmrnn-d-mmnist-small --threads 1 --max-time 80m --eval-every 250 --out runs/mmnist-d-1
cat > mmnist-d-2.toml <<'END'
curriculum = []
plateau = 0.2
END
vmrnn train --data "$1" --preset vmrnn-d-mmnist-small --config mmnist-d-2.toml --init runs/mmnist-d-1/best --lr 0.006 \
    --seed 1 --threads 1 --max-time 28m --eval-every 200 --out runs/mmnist-d-2
