#!/bin/sh
# vmrnn-b-natural, as it was trained: sh examples/train_natural.sh FOLDER_OF_CLIPS
# Two parts on one CPU thread: 31 minutes on clips scaled to 64x64, then 96 minutes on 64x64 squares cut from 128x128.
set -e
cat > natural-1.toml <<'END'
size = 64
crop = 0
curriculum = [[0.2, 5, 5], [0.42, 8, 10]]
END
# The rate of this part is that of the plateau of a run of 122 minutes, which was stopped.
timeout 32m vmrnn train --data "$1" --preset vmrnn-b-natural --config natural-1.toml --threads 1 --max-time 122m \
    --eval-every 300 --out runs/natural-1 || [ $? = 124 ]
cat > natural-2.toml <<'END'
curriculum = [[0.1, 6, 6], [0.35, 8, 10]]
END
vmrnn train --data "$1" --preset vmrnn-b-natural --config natural-2.toml --init runs/natural-1/best --threads 1 \
    --max-time 96m --eval-every 300 --out runs/natural-2
