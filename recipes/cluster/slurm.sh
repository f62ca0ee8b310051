#!/bin/bash
# A run on a Slurm allocation: a raylet a node comes up for it, the first with Ray's head, and all go when it ends, however it ends.
#   sbatch --nodes=8 recipes/cluster/slurm.sh recipes/fineweb.yaml /shared/crawl --output /shared/run
# Arguments are those of `corpusmill run`; paths are those of a file system that all nodes share, or s3:// (credentials: in the environment
# of sbatch). CORPUSMILL_BIN is the folder with `corpusmill` and `ray` on all nodes, by default .venv/bin below where sbatch was called.
#SBATCH --job-name=corpusmill
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
set -euo pipefail

bin=${CORPUSMILL_BIN:-${SLURM_SUBMIT_DIR:-$PWD}/.venv/bin}
cpus=${SLURM_CPUS_PER_TASK:-1}
port=$((20000 + SLURM_JOB_ID % 20000))
# Ray's own files, on each node's disk: a name that nobody there can foresee, short as sockets lie below it.
temp=/tmp/ray-$SLURM_JOB_ID-$(od -An -tx1 -N4 /dev/urandom | tr -d ' \n')

# The token lies where all nodes read it, and only this user.
token=${SLURM_SUBMIT_DIR:-$PWD}/.ray-token-$SLURM_JOB_ID
(umask 077 && od -An -tx1 -N32 /dev/urandom | tr -d ' \n' > "$token")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token RAY_USAGE_STATS_ENABLED=0

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
steps=() begun='' run='' stopped='' again=''

raylet() { # raylet NODE OPTION...: one there, which lives as long as its step
    local node=$1
    shift
    srun --nodes=1 --ntasks=1 --nodelist="$node" --overlap "$bin/ray" start --block --disable-usage-stats --temp-dir="$temp" \
        --object-store-memory=100000000 "$@" > /dev/null &
    steps+=("$!")
}

# shellcheck disable=SC2329 # traps call it, and stop
end() {
    trap '' USR1 TERM INT
    if [ "${#steps[@]}" -gt 0 ]; then
        kill -TERM "${steps[@]}" 2> /dev/null || true
        wait "${steps[@]}" 2> /dev/null || true
    fi
    srun --nodes="${#nodes[@]}" --ntasks="${#nodes[@]}" --overlap rm -rf "$temp" || true
    rm -f "$token"
    if [ -n "$again" ]; then scontrol requeue "$SLURM_JOB_ID"; fi
}
trap end EXIT

# shellcheck disable=SC2329
stop() { # the run ends in order, or does not begin, and goes on where it stopped when the job is started again
    stopped=yes
    if [ -z "$begun" ]; then exit 143; fi
    if [ -n "$run" ]; then kill -TERM "$run" 2> /dev/null || true; fi
}
trap stop TERM INT
trap 'again=yes; stop' USR1 # the time is nearly over

# alive N: whether so many nodes are registered with the head.
alive() {
    RAY_ADDRESS=$ip:$port "$bin/python" -c "import ray, sys
ray.init(logging_level='ERROR')
sys.exit(sum(node['Alive'] for node in ray.nodes()) < $1)" 2> /dev/null
}

srun --nodes="${#nodes[@]}" --ntasks="${#nodes[@]}" --overlap mkdir -m 700 "$temp"
# The head's node keeps a CPU for the run itself.
ip=$(srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" --overlap hostname -I | cut -d ' ' -f 1)
raylet "${nodes[0]}" --head --node-ip-address="$ip" --port="$port" --num-cpus="$((cpus > 1 ? cpus - 1 : 1))" --include-dashboard=false
for _ in {1..120}; do
    if (exec 3<> "/dev/tcp/$ip/$port") 2> /dev/null; then break; fi
    sleep 1
done
for _ in {1..30}; do # raylets that come before the head is registered give up
    if alive 1; then break; fi
    sleep 2
done
declare -A step=()
join() { # join NODE
    raylet "$1" --address="$ip:$port" --num-cpus="$cpus"
    step[$1]=$!
}
for node in "${nodes[@]:1}"; do join "$node"; done
SECONDS=0
until alive "${#nodes[@]}" || [ "$SECONDS" -gt 300 ]; do # those that come later are used, too
    for node in "${nodes[@]:1}"; do # a raylet that is not there within Ray's 30 seconds gives up
        if ! kill -0 "${step[$node]}" 2> /dev/null; then join "$node"; fi
    done
    sleep 2
done

begun=yes
RAY_ADDRESS=$ip:$port "$bin/corpusmill" run "$@" --engine ray &
run=$!
if [ -n "$stopped" ]; then stop; fi # it came just now
code=0
wait "$run" || code=$?
while [ "$code" -gt 128 ] && kill -0 "$run" 2> /dev/null; do # a signal ended the waiting, not the run
    code=0
    wait "$run" || code=$?
done
exit "$code"
