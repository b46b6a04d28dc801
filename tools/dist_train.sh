#!/usr/bin/env bash
# tools/dist_train.sh CONFIG GPUS [train.py options]
# For several nodes, set NNODES, NODE_RANK, MASTER_ADDR and PORT, as for mmseg's script of the same name.
# Without GPUs, it runs GPUS processes over gloo. With MAX_RESTARTS=N, all processes restart from the last resume point
# when one dies, up to N times; otherwise the job ends.
set -e
CONFIG=$1
GPUS=$2
NNODES=${NNODES:-1}
NODE_RANK=${NODE_RANK:-0}
PORT=${PORT:-29500}
MAX_RESTARTS=${MAX_RESTARTS:-0}
MASTER_ADDR=${MASTER_ADDR:-"127.0.0.1"}
HERE=$(cd "$(dirname "$0")" && pwd)
RENDEZVOUS=(--node_rank="$NODE_RANK" --master_addr="$MASTER_ADDR" --master_port="$PORT")
if [ "$MAX_RESTARTS" -gt 0 ]; then
    # In a store that outlives them, restarted processes would find the addresses of dead ones and wait for them.
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    RENDEZVOUS=(--rdzv_backend=c10d --rdzv_endpoint="$MASTER_ADDR:$PORT" --rdzv_id="$PORT")
    if [ "$NNODES" = 1 ]; then
        # Use a free port: if the port is in use, the job would wait silently until the other job ends.
        RENDEZVOUS=(--standalone --local_addr="$MASTER_ADDR")
    fi
fi

PYTHONPATH="$HERE/..":$PYTHONPATH exec python "$HERE/_launch.py" torchrun \
    --nnodes="$NNODES" \
    --nproc_per_node="$GPUS" \
    --max_restarts="$MAX_RESTARTS" \
    "${RENDEZVOUS[@]}" \
    "$HERE/train.py" "$CONFIG" --launcher pytorch "${@:3}"
