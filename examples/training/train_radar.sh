#!/bin/sh
# vmrnn-d-radar: sh examples/training/train_radar.sh FOLDER_OF_EVENTS
# For each event, 25 minutes of one CPU thread on the others, from the weights for footage: those are scored on that event,
# which they have not seen. The bundled weights are the mean of all.
set -e
python benchmarks/radar.py "$1" --netcdf runs/events
left_out=
for event in runs/events/*.nc; do
    name=$(basename "$event" .nc)
    vmrnn train --data runs/events --holdout "$name" --preset vmrnn-d-radar --init vmrnn-d-motion --threads 1 \
        --max-time 25m --dtype bfloat16 --eval-every 100000 --out "runs/radar-$name"
    left_out="$left_out --weights-for $name=runs/radar-$name/best"
done
python examples/training/averaged.py runs/radar-* runs/vmrnn-d-radar
# shellcheck disable=SC2086
python benchmarks/radar.py "$1" --weights vmrnn-d-motion $left_out
