#!/usr/bin/env bash
# A Slurm of one machine, for trying the Slurm profile for real; Debian or Ubuntu:
#
#   apt-get install -y slurm-wlm munge        # once, as root
#   tests/slurm/setup.sh start /tmp/slurm     # everything of it lives in that folder
#   . /tmp/slurm/env                          # now sbatch, squeue and sinfo ask it
#   tests/slurm/setup.sh stop /tmp/slurm
#
# To be started by root of a machine or container of its own, which has no other Slurm: apart from
# the folder it only lays the link /run/slurm/conf/slurm.conf, and `stop` removes that. Every
# finished job becomes a line of FOLDER/jobs.txt.
set -euo pipefail
export PATH="$PATH:/usr/sbin"
action=${1:?start or stop}
folder=$(realpath -m "${2:?a folder}")
link=/run/slurm/conf  # where Slurm looks for its settings when /etc/slurm has none

stop() {
  for name in slurmd slurmctld munged; do
    if [ -f "$folder/$name.pid" ]; then kill "$(cat "$folder/$name.pid")" 2>/dev/null || true; fi
  done
  if [ "$(readlink "$link/slurm.conf")" = "$folder/slurm.conf" ]; then rm "$link/slurm.conf"; fi
}

if [ "$action" = stop ]; then stop; exit; fi

mkdir -p "$folder"/{state,spool,munge}
chmod 700 "$folder/munge"
(umask 077 && head -c 1024 /dev/urandom > "$folder/munge/key")
cat > "$folder/slurm.conf" <<CONF
ClusterName=one
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CredType=cred/munge
SlurmctldPort=26817
SlurmdPort=26818
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
ReturnToService=2
# The executor asks squeue about jobs, so they stay in its list for a while.
MinJobAge=300
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc=$folder/jobs.txt
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(free -m | awk '/Mem:/ {print int($2 * 0.9)}')
PartitionName=main Nodes=ALL Default=YES MaxTime=1-0 State=UP
CONF
# The executor's jobs know no variable of Slurm's, so srun must find the file by itself.
mkdir -p "$link"
ln -sfn "$folder/slurm.conf" "$link/slurm.conf"
echo "export SLURM_CONF=$folder/slurm.conf" > "$folder/env"
. "$folder/env"
munged --key-file="$folder/munge/key" --socket="$folder/munge/socket" --force \
  --pid-file="$folder/munged.pid" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
slurmctld
slurmd
for _ in $(seq 30); do
  if sinfo --noheader --states=idle 2>/dev/null | grep -q main; then sinfo; exit; fi
  sleep 1
done
echo "Slurm does not answer; see $folder/slurmctld.log and $folder/slurmd.log" >&2
exit 1
