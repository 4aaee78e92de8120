"""A pretended Slurm: sbatch, srun, scontrol and sacct as scripts that run arrays of jobs on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

SBATCH = r"""#!{python}
import os, re, subprocess, sys
text = open(sys.argv[1]).read()
open("{folder}/script", "w").write(text)
last = re.search(r"--array=0-(\d+)", text)
print("Submitted batch job 77", flush=True)
if os.fork():
    sys.exit()
os.setsid()
for number in range(3):  # who waits for our output waits for the submission alone
    os.dup2(os.open(os.devnull, os.O_RDWR), number)
def start(number):
    env = dict(os.environ, SLURM_JOB_ID="77", SLURM_NTASKS="1", SLURM_JOB_NUM_NODES="1", SLURM_NODEID="0",
               SLURM_PROCID="0", SLURM_LOCALID="0")
    if last:
        env.update(SLURM_ARRAY_JOB_ID="77", SLURM_ARRAY_TASK_ID=str(number))
    return subprocess.Popen(["bash", sys.argv[1]], env=env)
jobs = {{n: start(n) for n in range(int(last[1]) + 1 if last else 1)}}
while jobs:
    for number, job in list(jobs.items()):
        job.wait()
        mark = "{folder}/requeue_77" + (f"_{{number}}" if last else "")
        del jobs[number]
        if os.path.exists(mark):
            os.remove(mark)
            jobs[number] = start(number)
"""
SRUN = """#!/bin/bash
while [[ $1 == -* ]]; do if [[ $1 == --output || $1 == --error ]]; then shift; fi; shift; done
exec "$@" > {folder}/log_$SLURM_ARRAY_TASK_ID 2>&1
"""
SCONTROL = """#!/bin/bash
touch {folder}/requeue_$2 {folder}/requeued_$2
"""
SACCT = """#!/bin/bash
echo "JobID|State|NodeList"
"""


def pretend_slurm(folder: Path) -> None:
    """Write the commands into a folder and put it first in PATH; `script` there is what sbatch was given."""
    folder.mkdir()
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL, "sacct": SACCT}.items():
        path = folder / name
        path.write_text(text.format(folder=folder, python=sys.executable))
        path.chmod(0o755)
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
