"""Hold one file for each executor: ``execute(config, context)`` returns the result of an attempt.

``config`` holds the arguments of the task (``execution.Work.arguments``), ``context`` is an
``execution.ExecutionContext``. What goes wrong is an ``ExecutionFailed`` with an error code, or any
other exception, whose class is the code then. An executor knows no database.
"""
