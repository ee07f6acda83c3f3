"""The entry point: parse the line, run the verb, turn errors into a message and an exit code."""

import argparse
import errno
import os
import sys
from collections.abc import Sequence

from finetune import __version__
from finetune.cli import check, data, doctor, export, generate, lora, miniature, queue, recipes, tell, train, ui
from finetune.errors import AtelierError, DiskError

_WRONG_PATHS = (NotADirectoryError, FileExistsError, IsADirectoryError, PermissionError)

EXIT_CODES = """\
exit codes:
  0 done   1 failed   2 recipe or usage   3 data   4 out of memory   5 diverged   6 disk
  130, 143 saved and stopped by a signal

to begin:
  atelier train quickstart        the embedded miniature; nothing is downloaded
  atelier recipes list            what else ships
  atelier ui                      all of it in a browser
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="atelier",
        description="Fine-tune Stable Diffusion XL with LoRA: recipes in, previews and portable files out.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"atelier {__version__}")
    subparsers = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in (train, check, data, tell, queue, recipes, generate, export, lora, ui, doctor, miniature):
        verb.add_parser(subparsers)
    return parser


def parse_line(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse a line; overrides may stand anywhere, also behind options, where argparse alone would not take them."""
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    overrides = [word for word in rest if "=" in word and not word.startswith("-")]
    if rest != overrides or (overrides and not hasattr(arguments, "overrides")):
        unknown = [word for word in rest if word not in overrides] or rest
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if overrides:
        arguments.overrides = [*arguments.overrides, *overrides]
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    arguments = parse_line(argv)
    try:
        code: int = arguments.run(arguments)
    except AtelierError as error:
        print(f"atelier: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("atelier: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if not isinstance(error, _WRONG_PATHS) and error.errno != errno.ENAMETOOLONG:
            raise
        print(f"atelier: {error.filename}: {error.strerror}. Check output_dir and the paths given", file=sys.stderr)
        return DiskError.exit_code
    return code


if __name__ == "__main__":
    sys.exit(main())
