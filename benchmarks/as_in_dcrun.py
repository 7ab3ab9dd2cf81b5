"""Importing this sets the process as dcrun's own are set; to be done before torch is imported, which reads it."""

from runner.config.process_settings import set_process

set_process()
