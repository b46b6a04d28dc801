#!/usr/bin/env bash
# tools/dist_train.sh CONFIG GPUS [train.py options]
# Several nodes: set NNODES, NODE_RANK, MASTER_ADDR and PORT, as for mmseg's script of this name.
# Without a GPU it runs GPUS processes over gloo. MAX_RESTARTS=N: when a process dies, all are started again, up to N
# times, and go on from the last resume point; a dead process otherwise ends the job.
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
    # In a store that outlives them, processes started again would find the addresses of the dead ones, and wait for them.
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    RENDEZVOUS=(--rdzv_backend=c10d --rdzv_endpoint="$MASTER_ADDR:$PORT" --rdzv_id="$PORT")
    if [ "$NNODES" = 1 ]; then
        # A free port: on a taken one, the job would wait in silence until the job there has ended.
        RENDEZVOUS=(--standalone --local_addr="$MASTER_ADDR")
    fi
fi

PYTHONPATH="$HERE/..":$PYTHONPATH exec python "$HERE/_launch.py" torchrun \
    --nnodes="$NNODES" \
    --nproc_per_node="$GPUS" \
    --max_restarts="$MAX_RESTARTS" \
    "${RENDEZVOUS[@]}" \
    "$HERE/train.py" "$CONFIG" --launcher pytorch "${@:3}"
