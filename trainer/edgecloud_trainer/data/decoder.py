"""`python -m edgecloud_trainer.data.decoder DESCRIPTOR`: decodes images for the process at the other end of a socket.

See `helper`, which starts it.
"""

from __future__ import annotations

import sys
import warnings
from multiprocessing.connection import Connection

from edgecloud_trainer.data.dataset import DataError
from edgecloud_trainer.data.decode import Decoded, decode_some
from edgecloud_trainer.data.helper import UP


def main() -> None:
    """Answer until the other side has gone."""
    warnings.simplefilter("ignore")
    with Connection(int(sys.argv[1])) as connection:
        try:
            connection.send(UP)
            while True:
                files, size = connection.recv()
                try:
                    answer: list[Decoded] | str = decode_some(files, size)
                except DataError as error:
                    answer = str(error)
                connection.send(answer)
        except (EOFError, ConnectionError):
            return


if __name__ == "__main__":
    main()
