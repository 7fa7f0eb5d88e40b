"""A study on other engines: any executor, and a real Dask cluster of which a worker is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from finetune.study.archive import Archive
from finetune.study.cli import main
from finetune.study.config import ExperimentConfig
from finetune.study.runner import run_experiment
from rramsim.checks import InputError
from tests.test_storage import same_bits

ROOT = Path(__file__).resolve().parent.parent
# Dask's own threads and sockets end after the test, with warnings that are not ours
pytestmark = pytest.mark.filterwarnings("ignore")


def test_any_executor_gives_the_same_bits(
    quick: ExperimentConfig, quick_archive: Archive, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(2) as executor:
        same_bits(quick_archive, run_experiment(quick, tmp_path / "threads.h5", executor=executor))


def test_schedulers_that_cannot_be_reached_are_refused(quick: ExperimentConfig, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    with pytest.raises(InputError, match="scheduler must be `local` or an address"):
        run_experiment(quick, tmp_path / "x.h5", scheduler="head:8786")
    assert not (tmp_path / "x.h5").exists()


def test_a_cluster_that_loses_a_worker_loses_and_doubles_no_trial(
    quick: ExperimentConfig, tmp_path: Path
) -> None:
    """A scheduler and two workers as separate processes; one of them is killed after the first trial."""
    distributed = pytest.importorskip("distributed")
    config = quick.replaced(chips=6)
    serial = run_experiment(config, tmp_path / "serial.h5", workers=1)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", *arguments]
        processes.append(
            subprocess.Popen(
                command,
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
        return processes[-1]

    try:
        file = str(tmp_path / "scheduler.json")
        start("distributed.cli.dask_scheduler", "--scheduler-file", file, "--no-dashboard", "--port", "0")
        options = ("--scheduler-file", file, "--nthreads", "1", "--no-dashboard", "--no-nanny")
        workers = [start("distributed.cli.dask_worker", *options) for _ in range(2)]
        with distributed.Client(scheduler_file=file, timeout="60s", set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            address = client.scheduler.address
            done: list[int] = []

            def on_trial(chip: int, accuracy: object) -> None:
                done.append(chip)
                if len(done) == 1:
                    workers[0].send_signal(signal.SIGKILL)

            study = run_experiment(config, tmp_path / "dask.h5", scheduler=address, on_trial=on_trial)
            assert len(client.scheduler_info()["workers"]) == 1, "one worker was killed"
        assert sorted(done) == list(config.experiment.chip_ids)
        same_bits(serial, study)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_cluster_of_this_machine_from_the_command_line(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    out = tmp_path / "local.h5"
    arguments = ["run", str(ROOT / "examples" / "quick.toml"), "--out", str(out), "--scheduler", "local"]
    result = CliRunner().invoke(main, [*arguments, "--workers", "1", "--no-figures", "--json"])
    assert result.exit_code == 0, result.output
    assert '"stage": "lsq.affine"' in result.stdout
