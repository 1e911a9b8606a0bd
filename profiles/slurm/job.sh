# Read by the batch shell of each SLURM job, on the host, before the job's command. A training that SLURM warned of its time
# limit (SIGUSR1), or told to give way to another job (SIGTERM), saves and asks for another turn with the file below: then the
# job puts itself back into the queue. A job that was cancelled gets SIGTERM too, but does not count as running any more.
MEDSCALE_ANOTHER_TURN="$PWD/logs/slurm/another-turn.$SLURM_JOB_ID"
export MEDSCALE_ANOTHER_TURN
rm -f "$MEDSCALE_ANOTHER_TURN"
trap 'if [ -e "$MEDSCALE_ANOTHER_TURN" ]; then
        rm -f "$MEDSCALE_ANOTHER_TURN"
        [ "$(squeue -h -j "$SLURM_JOB_ID" -o %T)" = RUNNING ] || exit
        echo "job $SLURM_JOB_ID goes back into the queue for another turn"
        scontrol requeue "$SLURM_JOB_ID" && sleep 120
      fi' EXIT
