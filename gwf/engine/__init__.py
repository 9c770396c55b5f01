"""Carry out the verbs: functions over a connection, which they never commit.

One file per noun: ``definitions`` (tasks and flows), ``creation`` (of jobs), ``jobs``,
``job_tasks``, ``sendback``, ``context``. ``state`` is the way that every verb on a job goes,
``advance`` decides what becomes due next, ``explain`` reads why a job waits.
"""
