#!/bin/sh
# The published recipe against ours at an equal budget of clips: sh examples/training/compare_recipes.sh bikenyc.npz
set -e
cat > published.toml <<'END' # that of the preset vmrnn-b-taxibj
optimizer = "adam"
lr = 4e-4
weight_decay = 0.0
schedule = "cosine"
warmup = 0.025
warmup_from = 0.025
plateau = 0.0
final_lr = 0.0025
clip_norm = 0.0
ema = 0.0
END
vmrnn train --data "$1" --preset vmrnn-b-bikenyc --threads 1 --steps 427 --eval-every 107 --out runs/ours
vmrnn train --data "$1" --preset vmrnn-b-bikenyc --config published.toml --threads 1 --steps 427 --eval-every 107 \
    --out runs/published
