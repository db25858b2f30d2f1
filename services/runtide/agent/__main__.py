"""`python -m runtide.agent`: how a training process starts its agent."""

import sys

from runtide.agent.main import main

sys.exit(main(sys.argv[1:]))
