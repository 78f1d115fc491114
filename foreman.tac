"""The same service as ``twistd foreman``, configured by the environment alone: ``twistd -ny foreman.tac``."""

from twisted.application.service import Application

from foreman.tap import service_from_environment

application = Application("foreman")
service_from_environment().setServiceParent(application)
