"""Run the command line with something going wrong on purpose. Used by tests as `driver.py WHAT … -- train RECIPE …`.

stop-at K       sends itself SIGTERM once step K is logged
kill-in K M     SIGKILLs itself in step K before its micro batch M
slow-saves S    sleeps S seconds before each file of a checkpoint, so that kills fall inside saves
fsize N         lets no file grow beyond N bytes
nan-at K        makes the loss of step K not a number
"""

import os
import signal
import sys
import time

from finetune.cli.main import main


def stop_at(step: str) -> None:
    from finetune.training.recorder import Recorder

    original = Recorder.after_step

    def after_step(self: Recorder, state: object, report: object) -> None:
        original(self, state, report)  # type: ignore[arg-type]
        if state.global_step == int(step):  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGTERM)

    Recorder.after_step = after_step  # type: ignore[method-assign,assignment]


def kill_in(step: str, micro_batch: str) -> None:
    from finetune.training.denoising import Denoising

    original = Denoising.make_batch
    seen: list[int] = []

    def make_batch(self, planned, generator, weight):  # type: ignore[no-untyped-def]
        if generator.global_step == int(step):
            if len(seen) == int(micro_batch):
                os.kill(os.getpid(), signal.SIGKILL)
            seen.append(len(seen))
        return original(self, planned, generator, weight)

    Denoising.make_batch = make_batch  # type: ignore[method-assign]


def slow_saves(seconds: str) -> None:
    from finetune.training import checkpoint

    for name in ("_write_tensors", "write_json", "rename"):
        setattr(checkpoint, name, _slowed(getattr(checkpoint, name), float(seconds)))


def _slowed(function, seconds):  # type: ignore[no-untyped-def]
    def slowed(*arguments):  # type: ignore[no-untyped-def]
        time.sleep(seconds)
        return function(*arguments)

    return slowed


def fsize(limit: str) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))


def nan_at(step: str) -> None:
    from finetune.training import denoising

    original = denoising.train_step

    def train_step(unet, noise_scheduler, objective, batch, generator):  # type: ignore[no-untyped-def]
        if generator.global_step == int(step):
            batch.latents[0, 0, 0, 0] = float("nan")
        return original(unet, noise_scheduler, objective, batch, generator)

    denoising.train_step = train_step


WHAT = {"stop-at": stop_at, "kill-in": kill_in, "slow-saves": slow_saves, "fsize": fsize, "nan-at": nan_at}

if __name__ == "__main__":
    split = sys.argv.index("--")
    what, *values = sys.argv[1:split]
    WHAT[what](*values)
    sys.exit(main(sys.argv[split + 1 :]))
