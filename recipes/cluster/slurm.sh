#!/bin/bash
# A run on a Slurm allocation: a Ray head and a raylet a node come up for it, and go when it ends, however it ends.
#   sbatch --nodes=8 recipes/cluster/slurm.sh recipes/fineweb.yaml /shared/crawl --output /shared/run
# Arguments are those of `corpusmill run`; paths have to be those of a file system that all nodes share, or s3://.
# CORPUSMILL_BIN is the folder with `corpusmill` and `ray` on all nodes (a virtual environment's bin).
#SBATCH --job-name=corpusmill
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
set -euo pipefail

bin=${CORPUSMILL_BIN:-$PWD/.venv/bin}
port=$((20000 + SLURM_JOB_ID % 20000)) # two jobs on one node do not meet
cpus=${SLURM_CPUS_PER_TASK:-1}

# Ray's own files lie on each node's disk, by a short path; its token lies where all nodes read it, and only this user.
temp=/tmp/ray-$SLURM_JOB_ID
token=${SLURM_SUBMIT_DIR:-$PWD}/.ray-token-$SLURM_JOB_ID
(umask 077 && od -An -tx1 -N32 /dev/urandom | tr -d ' \n' > "$token")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token RAY_USAGE_STATS_ENABLED=0

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
steps=()

end() {
    trap - EXIT TERM INT
    if [ "${#steps[@]}" -gt 0 ]; then
        kill -TERM "${steps[@]}" 2> /dev/null || true # srun passes it on to its node's raylet
        wait "${steps[@]}" 2> /dev/null || true
    fi
    rm -f "$token"
    srun --nodes="${#nodes[@]}" --ntasks="${#nodes[@]}" --overlap rm -rf "$temp" 2> /dev/null || true
}
trap end EXIT

on() { # on NODE RAY_START_OPTION...: a raylet there, which lives as long as its step
    local node=$1
    shift
    srun --nodes=1 --ntasks=1 --nodelist="$node" --overlap "$bin/ray" start --block --disable-usage-stats --temp-dir="$temp" \
        --object-store-memory=100000000 "$@" > /dev/null &
    steps+=($!)
}

# The head's node has a second raylet, which performs pieces: the head itself holds the run.
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap hostname -I | cut -d ' ' -f 1):$port
on "$head" --head --port="$port" --num-cpus=0 --node-ip-address="${address%:*}" --include-dashboard=false
for _ in {1..120}; do
    if (exec 3<> "/dev/tcp/${address%:*}/$port") 2> /dev/null; then break; fi
    sleep 1
done
for node in "${nodes[@]}"; do
    on "$node" --address="$address" --num-cpus="$cpus"
done

# The run is a child, so that Slurm's SIGTERM before the end of the time reaches it: it ends in order, and the requeued job goes on.
RAY_ADDRESS=$address "$bin/corpusmill" run "$@" --engine ray &
run=$!
trap 'kill -TERM "$run" 2> /dev/null || true' TERM INT
code=0
wait "$run" || code=$?
while kill -0 "$run" 2> /dev/null; do wait "$run" || code=$?; done
exit "$code"
