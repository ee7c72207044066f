#!/bin/sh
# vmrnn-d-mmnist-small, as it was trained: sh examples/train_mmnist_d.sh FOLDER_WITH_MNIST_IDX_FILES
# 80 minutes on one CPU thread.
set -e
vmrnn train --data "$1" --preset vmrnn-d-mmnist-small --threads 1 --max-time 80m --eval-every 250 --out runs/mmnist-d
