"""`python -m tests.system.activated FD serve ...`: fasthook, with a socket passed as by systemd.

sd_listen_fds(3): descriptors from 3 on, for the process whose id is in LISTEN_PID.
"""

import os
import sys

from fasthook.cli import main

if __name__ == "__main__":
    os.dup2(int(sys.argv.pop(1)), 3)
    os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "requests"}
    main()
