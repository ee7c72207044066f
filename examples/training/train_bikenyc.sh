#!/bin/sh
# vmrnn-b-bikenyc, as it was trained: sh examples/training/train_bikenyc.sh bikenyc.npz
# 25 minutes on one CPU thread.
set -e
vmrnn train --data "$1" --preset vmrnn-b-bikenyc --threads 1 --max-time 25m --out runs/bikenyc
python "$(dirname "$0")/bikenyc.py" "$1" --weights runs/bikenyc/best
