"""`python -m finetune` is `atelier`."""

import sys

from finetune.cli.main import main

sys.exit(main())
