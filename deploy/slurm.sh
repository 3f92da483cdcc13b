#!/bin/bash
# A fit on several nodes of a Slurm cluster: a Ray cluster for the time of the job. The arguments are those of saccade fit:
#   sbatch deploy/slurm.sh /shared/photos --out /shared/run --time-limit 110m
# --time-limit should end before --time does. A job that is pre-empted is put into the queue again, and resumes the run.
#SBATCH --job-name=saccade
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --exclusive
#SBATCH --time=02:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# With GPUs, and then SLURM_GPUS_ON_NODE is the number of each node:
##SBATCH --gpus-per-node=1
set -euo pipefail
# Activate the environment in which saccade[ray] is installed, on a disk that all nodes see:
# source /shared/venv/bin/activate

START_S=120 # longest wait for the head
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${hosts[0]}
addresses=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address)
ip=${addresses%% *} # a node may have several
port=$((20000 + SLURM_JOB_ID % 10000))

# Only those who have the token are answered: it reaches the nodes as a part of the job's environment.
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')

cpus=${SLURM_CPUS_PER_TASK:-1}
step=(srun --ntasks-per-node=1 "--cpus-per-task=$cpus") # srun does not take it over from sbatch
common=(--block "--num-cpus=$cpus" "--num-gpus=${SLURM_GPUS_ON_NODE:-0}")
log=ray-$SLURM_JOB_ID.log # beside the output of the job
nodes=()
end() {
  ((${#nodes[@]} == 0)) || kill "${nodes[@]}" 2>/dev/null || true
  wait
}
trap end EXIT

"${step[@]}" --nodes=1 --nodelist="$head" ray start --head "--node-ip-address=$ip" "--port=$port" \
  --include-dashboard=false "--temp-dir=/tmp/ray-$SLURM_JOB_ID" "${common[@]}" >>"$log" 2>&1 &
nodes+=($!)
until (exec 3<>"/dev/tcp/$ip/$port") 2>/dev/null; do
  kill -0 "${nodes[0]}" 2>/dev/null || { echo "Ray on $head has ended, see $log" >&2; exit 1; }
  ((SECONDS < START_S)) || { echo "Ray does not answer at $ip:$port, see $log" >&2; exit 1; }
  sleep 1
done
if ((${#hosts[@]} > 1)); then
  "${step[@]}" --nodes=$((${#hosts[@]} - 1)) --exclude="$head" ray start "--address=$ip:$port" "${common[@]}" >>"$log" 2>&1 &
  nodes+=($!)
fi

saccade fit "$@" --resume --executor ray --address "$ip:$port"
