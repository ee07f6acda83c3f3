"""Fill a folder of shards in a process of its own. Used by tests as `filling.py FOLDER FIRST LAST STEP SECONDS`.

The value of number n follows from n, so that any process can check it. Each takes SECONDS to make.
"""

import hashlib
import sys
import time
from pathlib import Path

from finetune.cache import folder as shards
from finetune.cache.shards import Part, RawValue

VALUE_BYTES = 1 << 14


def key_of(number: int) -> str:
    return hashlib.sha256(f"key {number}".encode()).hexdigest()


def value_of(number: int) -> RawValue:
    data = hashlib.shake_128(f"value {number}".encode()).digest(VALUE_BYTES)
    return RawValue((Part("x", "U8", (VALUE_BYTES,)),), data)


def main() -> None:
    path, *numbers = sys.argv[1:]
    first, last, step = map(int, numbers[:3])
    shards.SHARD_VALUES = 4
    store = shards.ShardFolder(Path(path), lambda message: sys.exit(f"damaged: {message}"))
    made = 0
    for number in range(first, last, step):
        if key_of(number) not in store:
            time.sleep(float(numbers[3]))
            store.put(key_of(number), value_of(number))
            made += 1
    store.flush()
    print(made, flush=True)


if __name__ == "__main__":
    main()
