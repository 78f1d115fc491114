"""The same service as ``twistd foreman``, configured by the environment alone: ``twistd -ny foreman.tac``."""

import os

from twisted.application.service import Application

from foreman.config import load
from foreman.tap import service_from

application = Application("foreman")
service_from(load(os.environ)).setServiceParent(application)
