# Detached, it is sbatch of this:
#!/bin/bash
#SBATCH --job-name=mixed
#SBATCH --chdir=FOLDER
#SBATCH --output=job.log
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@60
#SBATCH --partition=main
#SBATCH --account=lab
#SBATCH --time=90
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem-per-cpu=239M
#SBATCH --gpus-per-task=1
#SBATCH --no-kill
#SBATCH --requeue
#SBATCH hetjob
#SBATCH --partition=main
#SBATCH --account=lab
#SBATCH --time=90
#SBATCH --nodes=2-3
#SBATCH --ntasks=3
#SBATCH --cpus-per-task=2
#SBATCH --no-kill
#SBATCH --requeue
#SBATCH hetjob
#SBATCH --partition=main
#SBATCH --account=lab
#SBATCH --time=90
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --constraint=fast
#SBATCH --nodelist=n3
#SBATCH --no-kill
#SBATCH --requeue

# SIGTERM comes before the time limit and on pre-emption: the nodes stop in order.
stopped=
trap 'stopped=yes; kill -TERM "$controller"' TERM
env PYTHONPATH={path} PYTHONUNBUFFERED=1 python -m callsheet.launch.remote.controller FOLDER &
controller=$!
wait "$controller"; code=$?
while kill -0 "$controller" 2>/dev/null; do wait "$controller"; code=$?; done
state=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T | sort -u)
if [ -n "$stopped" ] && [ "$state" = RUNNING ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
