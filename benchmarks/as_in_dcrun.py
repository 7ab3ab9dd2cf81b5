"""Sets this process as dcrun sets its own, when it is imported. Import it before torch, which reads the settings."""

from runner.config.process_settings import set_process

set_process()
