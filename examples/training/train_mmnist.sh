#!/bin/sh
# vmrnn-b-mmnist, as it was trained (but for the batch, then 4 clips in the first 24 minutes): sh examples/training/train_mmnist.sh FOLDER_WITH_MNIST_IDX_FILES
# 80 minutes on two CPU threads, then 118 minutes on one.
set -e
vmrnn train --data "$1" --preset vmrnn-b-mmnist --threads 2 --max-time 80m --out runs/mmnist-1
cat > mmnist-2.toml <<'END'
curriculum = []
plateau = 0.3
END
vmrnn train --data "$1" --preset vmrnn-b-mmnist --config mmnist-2.toml --init runs/mmnist-1/best --lr 0.006 --threads 1 \
    --max-time 118m --eval-every 400 --out runs/mmnist-2
