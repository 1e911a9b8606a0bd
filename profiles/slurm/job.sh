# Sourced by the batch shell of each SLURM job, on the host, before the job's command. SLURM warns a
# training of its time limit (SIGUSR1) or of its preemption (SIGTERM). The training then saves a
# checkpoint and asks for another turn by creating the file below, and the job requeues itself. A
# cancelled job gets SIGTERM too, but SLURM no longer reports it as running. The first line of its
# log names its workdir.
echo "medscale: job of $MEDSCALE_PLACE"
MEDSCALE_ANOTHER_TURN="$PWD/logs/slurm/another-turn.$SLURM_JOB_ID"
export MEDSCALE_ANOTHER_TURN
rm -f "$MEDSCALE_ANOTHER_TURN"
trap 'if [ -e "$MEDSCALE_ANOTHER_TURN" ]; then
        rm -f "$MEDSCALE_ANOTHER_TURN"
        [ "$(squeue -h -j "$SLURM_JOB_ID" -o %T)" = RUNNING ] || exit
        echo "job $SLURM_JOB_ID goes back into the queue for another turn"
        scontrol requeue "$SLURM_JOB_ID" && sleep 120
      fi' EXIT
