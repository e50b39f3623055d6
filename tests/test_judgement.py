"""When the monitor speaks, when it acts, and why it is silent: the specification as stories.

Each story is a sentence, a policy, and what happens minute by minute:

    12:00  stopped               -> ALERT stopped opened
    12:01  stopped               -> -                          because incident.told

Left of the arrow stands what a look at the job sees (or what a person or the machine does), right
of it all that is told and done, `-` for nothing, and, where it matters, the reasons given. Effects
read like this:

    routine, completed, AUTORUN         a report, a completion, one attempt to resume
    ALERT stopped opened                a section of rank ALERT about the incident `stopped`;
                                        other tellings: worse, changed, reminder, resolved, told
    resume, restart                     the job is started (or stopped and started) by itself
    queue verify in 30                  a follow-up job is queued

When a look leads to `resume` or `restart`, the story goes on as a tick does: the intention is
saved, the attempt is made and has its result. Between two lines the memory passes through the
state file's JSON. Unless a story says otherwise it is a read-only long job with the default policy.
"""

import ast
import json
import random
import re
import unittest
from typing import NamedTuple

from tests import SCRIPT, ops

DAY_ZERO = 86400.0 * 19675  # a midnight
RANKS = {ops.ALERT: "ALERT ", ops.WARN: "WARN ", ops.NOTICE: "", ops.ROUTINE: ""}
REDACT = ops.Redactor()
SEEN = {"reasons": set(), "phrases": set()}  # of every decision that a story or a walk has made

LONG = {
    "id": "index", "kind": "long_running_read", "risk": "read_only", "enabled": True,
    "commands": {"start": ["start"], "status": ["status"]},
}  # fmt: skip
CHECK = {"id": "disk", "kind": "one_shot_read", "risk": "read_only", "enabled": True, "commands": {"run": ["check"]}}
QUIET_NEVER = {"quietHours": {"start": "00:00", "end": "00:00"}}
ONLY_TROUBLE = {"reportWhileRunning": False}
RESUMES = {"autoResume": True, "reportWhileRunning": False, **QUIET_NEVER}
STOPPABLE = {"commands": {"start": ["start"], "status": ["status"], "stop": ["stop"]}}
RESTARTS = {"onStall": "restart", "reportWhileRunning": False, **QUIET_NEVER}
FOLLOWED = {"after": [{"jobId": "verify"}, {"jobId": "clean", "when": "always", "delaySeconds": 30}, {"jobId": "mourn", "when": "failure"}]}

# (sentence, policy, what happens, settings of the job)
ROUTINE_STORIES = [
    ("the first time that a job is seen running is told, then progress by time, changed or not", {}, """
        12:00  running k1        -> routine                     because report.first
        12:01  running k1        -> -                           because report.nothing_new
        12:29  running k1        -> -
        12:30  running k1        -> routine                     because report.by_time
        12:59  running k1        -> -
        """),
    ("progress that has changed is told earlier, but no closer than minReportSeconds", {}, """
        12:00  running k1        -> routine
        12:01  running k2        -> -                           because report.too_soon
        12:05  running k3        -> routine                     because report.by_change
        12:06  running k4        -> -                           because report.too_soon
        12:07  running k3        -> -                           because report.nothing_new
        12:10  running k5        -> routine                     because report.by_change
        """),
    ("onlyOnChange false leaves routine by time alone", {"onlyOnChange": False}, """
        12:00  running k1        -> routine
        12:20  running k2        -> -                           because report.nothing_new
        12:30  running k3        -> routine                     because report.by_time
        """),
    ("reportEverySeconds 0 leaves routine by change alone", {"reportEverySeconds": 0, "stallSeconds": 0}, """
        12:00  running k1        -> routine
        18:00  running k1        -> -                           because report.nothing_new
        18:01  running k2        -> routine                     because report.by_change
        """),
    ("reportEverySeconds below minReportSeconds is obeyed: the floor is for extra reports", {"reportEverySeconds": 60}, """
        12:00  running k1        -> routine
        12:01  running k1        -> routine                     because report.by_time
        12:02  running k2        -> routine                     because report.by_time
        """),
    ("a job without a progress key is told by time alone", {}, """
        12:00  running           -> routine                     because report.first
        12:20  running           -> -                           because report.nothing_new
        12:30  running           -> routine                     because report.by_time
        """),
    ("reportWhileRunning false leaves completion and trouble", ONLY_TROUBLE, """
        12:00  running k1        -> -                           because report.off
        12:59  running k1        -> -                           because report.off
        13:00  running k1        -> ALERT stalled opened        because report.off, incident.opened
        13:01  completed         -> completed, stalled resolved because report.completed
        """),
    ("quiet hours hold routine, and in the morning is told what is true then", {"stallSeconds": 0}, """
        22:50  running k1        -> routine
        23:00  running k2        -> -                           because report.quiet_hours
        03:00  running k3        -> -                           because report.quiet_hours
        07:59  running k3        -> -                           because report.quiet_hours
        08:00  running k4        -> routine                     because report.by_time
        08:01  running k4        -> -
        """),
    ("what came and went in quiet hours is one line in the morning", {}, """
        23:30  running k1        -> -                           because report.quiet_hours
        23:50  running k2        -> -                           because report.quiet_hours
        04:00  completed         -> -                           because report.quiet_hours
        07:59  completed         -> -
        08:00  completed         -> completed
        08:01  completed         -> -                           because report.completed_before
        """),
    ("equal halves of quietHours are no quiet hours", QUIET_NEVER, """
        00:00  running k1        -> routine
        03:00  running k2        -> routine
        """),
    ("a missing half of quietHours is the default half", {"quietHours": {"end": "06:00"}, "stallSeconds": 0}, """
        22:50  running k1        -> routine
        23:00  running k2        -> -                           because report.quiet_hours, again 06:00
        05:59  running k2        -> -                           because report.quiet_hours
        06:00  running k2        -> routine
        """),
    ("quiet hours within one day end the same day", {"quietHours": {"start": "12:00", "end": "13:00"}, "stallSeconds": 0}, """
        11:59  running k1        -> routine
        12:00  running k2        -> -
        12:59  running k2        -> -                           because report.quiet_hours
        13:00  running k2        -> routine
        23:30  running k2        -> routine
        """),
    ("quiet hours follow the local wall minute, whatever summer time does", {"quietHours": {"start": "01:00", "end": "02:30"}, "stallSeconds": 0}, """
        00:59  running k1        -> routine
        01:59  running k1        -> -                           because report.quiet_hours
        02:00  local time jumps ahead 1h
        02:00  running k1        -> routine
        04:00  local time jumps back 3h
        04:00  running k2        -> -                           because report.quiet_hours
        """),
    ("completion is told once and queues `after` once", {}, """
        12:00  running k1        -> routine
        12:05  completed         -> completed, queue verify, queue clean in 30
        12:06  completed         -> -                           because report.completed_before
        12:07  unknown           -> ALERT unknown opened
        12:08  completed         -> unknown resolved            because report.completed_before
        """, FOLLOWED),
    ("a job that was complete and runs again starts over: first report, completion, `after`", {}, """
        12:00  completed         -> completed, queue verify, queue clean in 30
        12:01  running k1        -> routine                     because report.first
        12:02  completed         -> completed, queue verify, queue clean in 30
        12:03  completed         -> -
        """, FOLLOWED),
    ("quiet hours hold the telling of a completion, not what it queues", {}, """
        03:00  completed         -> queue verify, queue clean in 30  because report.quiet_hours
        03:01  completed         -> -
        08:00  completed         -> completed
        """, FOLLOWED),
    ("neither a stopped nor an idle nor an unknown job has routine", {}, """
        12:00  idle              -> -                           because report.not_running
        12:01  stopped           -> ALERT stopped opened        because report.not_running
        12:02  unknown           -> ALERT unknown opened        because report.not_running
        """),
    ("with the clock set back a report dated in the future counts as made now", QUIET_NEVER, """
        12:00  running k1        -> routine
        12:01  the clock jumps back 300d
        12:01  running k1        -> -                           because report.nothing_new
        12:30  running k1        -> -
        12:31  running k1        -> routine                     because report.by_time
        """),
    ("a look that is older than the last one judged changes nothing", {}, """
        12:00  running k1        -> routine
        12:01  stopped 5m ago    -> -                           because look.older
        12:02  running k1        -> -
        """),
]

STALL_STORIES = [
    ("running with the same key for stallSeconds is a stall; new progress closes it", ONLY_TROUBLE, """
        12:00  running k1        -> -
        12:30  running k1        -> -
        12:59  running k1        -> -                           because stalled: incident.none
        13:00  running k1        -> ALERT stalled opened        because stalled: incident.opened
        13:01  running k1        -> -                           because stalled: incident.told
        13:02  running k2        -> stalled resolved            because stalled: incident.resolved
        """),
    ("a stall is told in quiet hours too", ONLY_TROUBLE, """
        01:00  running k1        -> -
        02:00  running k1        -> ALERT stalled opened
        """),
    ("stallSeconds 0 switches stalls off", {**ONLY_TROUBLE, "stallSeconds": 0}, """
        12:00  running k1        -> -
        11:00  running k1        -> -
        """),
    ("the time that the machine sleeps is no stall", ONLY_TROUBLE, """
        12:00  running k1        -> -
        12:30  running k1        -> -
        20:30  asleep until now
        20:30  running k1        -> -
        20:59  running k1        -> -
        21:00  running k1        -> ALERT stalled opened
        """),
    ("a wall clock that jumps is no stall, and hides none", {**ONLY_TROUBLE, **QUIET_NEVER}, """
        12:00  running k1        -> -
        12:30  the clock jumps ahead 400d
        12:30  running k1        -> -
        12:31  the clock jumps back 800d
        12:59  running k1        -> -
        13:00  running k1        -> ALERT stalled opened
        """),
    ("an unknown look adds nothing and resets nothing", {**ONLY_TROUBLE, "alertAfter": 1}, """
        12:00  running k1        -> -
        12:30  running k1        -> -
        12:31  unknown           -> ALERT unknown opened
        12:50  running k1        -> unknown resolved
        13:19  running k1        -> -
        13:20  running k1        -> ALERT stalled opened
        """),
    ("a job that waits on purpose does not stall, nor does its waiting count", ONLY_TROUBLE, """
        12:00  running k1            -> -
        12:30  running k1            -> -
        12:31  running k1 waiting    -> -
        16:00  running k1 waiting    -> -
        16:01  running k1            -> -
        16:30  running k1            -> -
        16:31  running k1            -> ALERT stalled opened
        16:32  running k1 waiting    -> -                       because stalled: incident.unsure
        16:33  running k2 waiting    -> -
        16:34  running k2            -> stalled resolved
        """),
    ("a look without a key adds nothing and resets nothing", ONLY_TROUBLE, """
        12:00  running k1        -> -
        12:30  running k1        -> -
        12:31  running           -> -
        15:00  running k1        -> -
        15:30  running k1        -> ALERT stalled opened
        15:31  running           -> -                           because stalled: incident.unsure
        """),
    ("a new key resets the count", ONLY_TROUBLE, """
        12:00  running k1        -> -
        12:59  running k1        -> -
        13:00  running k2        -> -
        13:59  running k2        -> -
        14:00  running k2        -> ALERT stalled opened
        """),
    ("a new pid or a new run is a new run, even with the old key", ONLY_TROUBLE, """
        12:00  running k1 pid=7  -> -
        12:59  running k1 pid=7  -> -
        13:00  running k1 pid=8  -> -
        13:59  running k1 pid=8  -> -
        14:00  running k1 run=b  -> ALERT stalled opened
        14:01  running k1 run=c  -> stalled resolved
        """),
    ("a run that follows a stop is a new run", {**ONLY_TROUBLE}, """
        12:00  running k1        -> -
        12:59  running k1        -> -
        13:00  stopped           -> ALERT stopped opened
        13:01  running k1        -> stopped resolved
        14:00  running k1        -> -
        14:01  running k1        -> ALERT stalled opened
        """),
    ("a reboot resets the count", ONLY_TROUBLE, """
        12:00  running k1        -> -
        12:59  running k1        -> -
        13:00  reboot
        13:00  running k1        -> -
        13:59  running k1        -> -
        14:00  running k1        -> ALERT stalled opened
        """),
    ("onStall restart stops and starts a job that has commands.stop, as one attempt", RESTARTS, """
        12:00  running k1        -> -
        12:59  running k1        -> -                           because resume.moving
        13:00  running k1        -> restart, AUTORUN            because resume.now
        13:01  running k1        -> -                           because stalled: incident.unsure
        13:05  running k2        -> stalled resolved
        """, STOPPABLE),
    ("onStall restart of a job that nothing can stop only alerts", RESTARTS, """
        12:00  running k1        -> -
        13:00  running k1        -> ALERT stalled opened        because resume.off
        """),
    ("a restart that does not help gives up after the last attempt, once", {**RESTARTS, "autoResumeMaxAttempts": 2}, """
        12:00  running k1        -> -
        13:00  running k1        -> restart, AUTORUN
        13:01  running k1        -> -
        14:00  running k1        -> restart, AUTORUN
        15:00  running k1        -> ALERT stalled worse         because resume.gave_up
        15:01  running k1        -> -
        15:02  running k2        -> stalled resolved
        """, STOPPABLE),
    ("a restart waits for the back-off like any attempt", {**RESTARTS, "stallSeconds": 600}, """
        12:00  running k1        -> -
        12:10  running k1        -> restart, AUTORUN
        12:20  running k1        -> -                           because resume.backoff
        12:24  running k1        -> -                           because resume.backoff
        12:25  running k1        -> restart, AUTORUN
        """, STOPPABLE),
    ("a restarted job that has no key yet has not recovered: its run counts from the restart", {**RESTARTS, "autoResumeMaxAttempts": 1}, """
        12:00  running k1        -> -
        13:00  running k1        -> restart, AUTORUN
        13:01  running           -> -
        13:02  running k1        -> -
        14:02  running k1        -> ALERT stalled worse         because resume.gave_up
        """, STOPPABLE),
    ("a waiting job is not restarted", RESTARTS, """
        12:00  running k1            -> -
        13:00  running k1 waiting    -> -                       because resume.moving
        15:00  running k1 waiting    -> -                       because resume.moving
        """, STOPPABLE),
]

TROUBLE_STORIES = [
    ("a status that cannot be told is an incident, closed by the next good look", ONLY_TROUBLE, """
        03:00  unknown           -> ALERT unknown opened        because unknown: incident.opened
        03:01  unknown           -> -                           because unknown: incident.told
        03:02  running k1        -> unknown resolved
        """),
    ("alertAfter looks in a row must agree before an incident opens", {**ONLY_TROUBLE, "alertAfter": 3}, """
        12:00  unknown           -> -                           because unknown: incident.not_yet
        12:01  unknown           -> -
        12:02  running k1        -> -                           because unknown: incident.none
        12:03  unknown           -> -
        12:04  unknown           -> -
        12:05  unknown           -> ALERT unknown opened
        12:06  running k1        -> unknown resolved
        """),
    ("a different reason why the status is unknown is told once", ONLY_TROUBLE, """
        12:00  unknown           -> ALERT unknown opened
        12:01  unknown timeout   -> ALERT unknown changed
        12:02  unknown timeout   -> -
        """),
    ("unknown neither closes nor repeats what was open before", ONLY_TROUBLE, """
        12:00  stopped           -> ALERT stopped opened
        12:01  unknown           -> ALERT unknown opened        because stopped: incident.unsure
        12:02  stopped           -> unknown resolved            because stopped: incident.told
        """),
    ("a stopped job asks for action at once, in quiet hours too, and once", {}, """
        03:00  stopped exit-3    -> ALERT stopped opened        because resume.off, report.not_running
        03:01  stopped exit-3    -> -                           because stopped: incident.told
        03:02  running k1        -> stopped resolved
        """),
    ("a job that was never started is idle: no alert, no resume", RESUMES, """
        12:00  idle              -> -                           because resume.not_stopped, stopped: incident.none
        """),
    ("what a person stopped is held: neither alerted nor resumed until `start`", RESUMES, """
        12:00  running k1        -> -
        12:01  a person stops it
        12:01  stopped           -> -                           because resume.held, stopped: incident.none
        20:00  stopped           -> -                           because resume.held
        20:01  a person starts it
        20:02  running k2        -> -
        20:03  stopped           -> resume, AUTORUN
        """),
    ("a job that completes is no longer stopped", ONLY_TROUBLE, """
        12:00  stopped           -> ALERT stopped opened
        12:01  completed         -> completed, stopped resolved
        """),
    ("level alert rings in quiet hours, level warn is held like routine", ONLY_TROUBLE, """
        22:00  running k1 warn   -> WARN level opened
        22:01  running k2        -> level resolved
        23:30  running k3 warn   -> -                           because level: incident.quiet_hours, again 08:00
        23:31  running k4        -> -                           because level: incident.came_and_went
        03:00  running k5 warn   -> -
        03:01  running k6 alert  -> ALERT level opened
        03:02  running k7        -> level resolved
        """),
    ("a warning that is still true in the morning is told then", {**ONLY_TROUBLE, "stallSeconds": 0}, """
        23:30  running k1 warn   -> -
        07:59  running k1 warn   -> -                           because level: incident.quiet_hours
        08:00  running k1 warn   -> WARN level opened
        """),
    ("what gets worse is told again, at once", ONLY_TROUBLE, """
        22:58  running k1 warn   -> WARN level opened
        23:30  running k2 alert  -> ALERT level worse           because level: incident.worse
        23:31  running k3 alert  -> -
        23:32  running k4 warn   -> -
        """),
    ("more than six flips in an hour are told as flapping, once, and once when an hour was steady", ONLY_TROUBLE, """
        12:00  unknown           -> ALERT unknown opened
        12:01  running k1        -> unknown resolved
        12:02  unknown           -> ALERT unknown opened
        12:03  running k1        -> unknown resolved
        12:04  unknown           -> ALERT unknown opened
        12:05  running k1        -> unknown resolved
        12:06  unknown           -> WARN flapping opened        because unknown: incident.flapping
        12:07  running k1        -> -
        12:08  unknown           -> -                           because unknown: incident.flapping
        12:20  running k2        -> -
        13:19  running k3        -> -
        13:20  running k4        -> flapping resolved
        13:21  unknown           -> ALERT unknown opened
        """),
    ("what is wrong when a job settles is told then", ONLY_TROUBLE, """
        12:00  stopped           -> ALERT stopped opened
        12:01  running k1        -> stopped resolved
        12:02  stopped           -> ALERT stopped opened
        12:03  running k1        -> stopped resolved
        12:04  stopped           -> ALERT stopped opened
        12:05  running k1        -> stopped resolved
        12:06  stopped           -> WARN flapping opened
        13:05  stopped           -> -
        13:06  stopped           -> flapping resolved
        13:07  stopped           -> ALERT stopped opened
        """),
    ("what gets worse while a job flaps is told when it has settled", {**ONLY_TROUBLE, "alertRepeatSeconds": 0}, """
        12:00  running k1 warn   -> WARN level opened
        12:01  unknown           -> ALERT unknown opened
        12:02  running k2 warn   -> unknown resolved
        12:03  unknown           -> ALERT unknown opened
        12:04  running k3 warn   -> unknown resolved
        12:05  unknown           -> ALERT unknown opened
        12:06  running k4 warn   -> WARN flapping opened
        12:07  running k4 alert  -> -                           because level: incident.flapping
        13:05  running k5 alert  -> -
        13:06  running k6 alert  -> flapping resolved
        13:07  running k7 alert  -> ALERT level worse
        """),
    ("warnings that come and go at night are no flapping", ONLY_TROUBLE, """
        23:00  running k1 warn   -> -
        23:01  running k1        -> -
        23:02  running k1 warn   -> -
        23:03  running k1        -> -
        23:04  running k1 warn   -> -
        23:05  running k1        -> -
        23:06  running k1 warn   -> -                           because level: incident.quiet_hours
        23:07  running k1        -> -                           because level: incident.came_and_went
        """),
    ("six flips in an hour are told one by one, for ever", ONLY_TROUBLE, """
        12:00  unknown           -> ALERT unknown opened
        12:01  running k1        -> unknown resolved
        12:30  unknown           -> ALERT unknown opened
        12:31  running k2        -> unknown resolved
        12:50  unknown           -> ALERT unknown opened
        12:51  running k3        -> unknown resolved
        13:02  unknown           -> ALERT unknown opened
        13:03  running k4        -> unknown resolved
        """),
    ("more than twelve flips in a day are flapping too, however slow; an hour without one settles it", ONLY_TROUBLE, """
        08:00  unknown           -> ALERT unknown opened
        08:30  running k1        -> unknown resolved
        09:00  unknown           -> ALERT unknown opened
        09:30  running k2        -> unknown resolved
        10:00  unknown           -> ALERT unknown opened
        10:30  running k3        -> unknown resolved
        11:00  unknown           -> ALERT unknown opened
        11:30  running k4        -> unknown resolved
        12:00  unknown           -> ALERT unknown opened
        12:30  running k5        -> unknown resolved
        13:00  unknown           -> ALERT unknown opened
        13:30  running k6        -> unknown resolved
        14:00  unknown           -> WARN flapping opened        because unknown: incident.flapping
        14:30  running k7        -> -
        15:29  running k8        -> -
        15:30  running k9        -> flapping resolved
        """),
    ("what was steady for an hour is told as what it is; a job that flapped a lot flaps again at its second flip", ONLY_TROUBLE, """
        08:00  unknown           -> ALERT unknown opened
        08:01  running k1        -> unknown resolved
        08:02  unknown           -> ALERT unknown opened
        08:03  running k2        -> unknown resolved
        08:04  unknown           -> ALERT unknown opened
        08:05  running k3        -> unknown resolved
        08:06  unknown           -> WARN flapping opened
        08:07  running k4        -> -
        08:08  unknown           -> -
        08:09  running k5        -> -
        08:10  unknown           -> -
        08:11  running k6        -> -
        08:12  unknown           -> -
        09:12  unknown           -> flapping resolved
        09:13  unknown           -> ALERT unknown opened        because unknown: incident.opened
        09:14  unknown           -> -                           because unknown: incident.told
        12:00  running k7        -> unknown resolved            because unknown: incident.resolved
        12:10  unknown           -> WARN flapping opened        because unknown: incident.flapping
        12:20  running k8        -> -
        13:20  running k9        -> flapping resolved
        13:20  the clock jumps ahead 1d
        13:21  unknown           -> ALERT unknown opened
        13:22  running k10       -> unknown resolved
        """),
    ("only a running job has a level", ONLY_TROUBLE, """
        12:00  running k1 alert  -> ALERT level opened
        12:01  unknown           -> ALERT unknown opened        because level: incident.unsure
        12:02  completed alert   -> completed, level resolved, unknown resolved
        """),
]

REMINDER_STORIES = [
    ("reminders come after alertRepeatSeconds, each next wait doubles, at most 24 h", {}, """
        12:00  stopped           -> ALERT stopped opened
        15:59  stopped           -> -                           because stopped: incident.told, again 16:00
        16:00  stopped           -> ALERT stopped reminder      because stopped: incident.reminder
        23:59  stopped           -> -
        00:00  stopped           -> ALERT stopped reminder
        15:59  stopped           -> -
        16:00  stopped           -> ALERT stopped reminder
        15:59  stopped           -> -
        16:00  stopped           -> ALERT stopped reminder
        15:59  stopped           -> -
        16:00  stopped           -> ALERT stopped reminder
        """),
    ("alertRepeatSeconds 0 never reminds", {"alertRepeatSeconds": 0}, """
        12:00  stopped           -> ALERT stopped opened
        11:59  stopped           -> -                           because stopped: incident.told_once
        11:58  stopped           -> -
        """),
    ("numbers, counters and times do not make a text different, other words do", {}, """
        12:00  stopped exit-3    -> ALERT stopped opened
        12:01  stopped exit-44   -> -
        12:02  stopped killed    -> ALERT stopped changed       because stopped: incident.changed
        12:03  stopped killed    -> -
        """),
    ("at most five texts of one incident are told", {}, """
        12:00  stopped a         -> ALERT stopped opened
        12:01  stopped b         -> ALERT stopped changed
        12:02  stopped c         -> ALERT stopped changed
        12:03  stopped d         -> ALERT stopped changed
        12:04  stopped e         -> ALERT stopped changed
        12:05  stopped f         -> -                           because stopped: incident.told
        12:06  stopped g         -> -
        16:04  stopped h         -> ALERT stopped reminder
        """),
    ("an acknowledged incident is not reminded of until it changes", {}, """
        12:00  stopped           -> ALERT stopped opened
        12:30  a person acknowledges stopped
        11:00  stopped           -> -                           because stopped: incident.acked
        11:01  stopped killed    -> ALERT stopped changed
        15:01  stopped killed    -> ALERT stopped reminder
        """),
    ("an acknowledged incident that gets worse is told", ONLY_TROUBLE, """
        12:00  running k1 warn   -> WARN level opened
        12:01  a person acknowledges level
        12:02  running k2 alert  -> ALERT level worse
        """),
    ("an acknowledged incident that ends is told as resolved", ONLY_TROUBLE, """
        12:00  running k1 alert  -> ALERT level opened
        12:01  a person acknowledges level
        12:02  running k2        -> level resolved
        """),
    ("with the clock set back a reminder waits its own time from now, not until the old date", QUIET_NEVER, """
        12:00  stopped           -> ALERT stopped opened
        12:01  the clock jumps back 300d
        12:01  stopped           -> -
        16:00  stopped           -> -
        16:01  stopped           -> ALERT stopped reminder
        """),
    ("a muted job tells nothing; afterwards the messages are counted, and what is still open is told", ONLY_TROUBLE, """
        12:00  a person mutes it for 2h
        12:01  stopped           -> -                           because muted, stopped: incident.opened
        12:02  running k1        -> -
        12:03  stopped           -> -
        14:00  stopped           -> ALERT stopped reminder, unmuted (3 held)
        14:01  stopped           -> -
        """),
    ("a mute in which nothing happened ends without a word", ONLY_TROUBLE, """
        12:00  a person mutes it for 2h
        12:01  running k1        -> -
        12:30  running k2        -> -
        14:00  running k3        -> -
        """),
    ("a mute holds messages, not work: the job is resumed and its `after` is queued", {**RESUMES, "alertAfter": 1}, """
        12:00  a person mutes it for 2h
        12:01  stopped           -> resume
        12:02  completed         -> queue verify
        14:01  completed         -> unmuted (3 held)
        """, {"after": [{"jobId": "verify"}]}),
    ("an anomaly that v1 had told is not told again, is reminded of and is resolved", {}, """
        12:00  v1 told an anomaly
        12:01  stopped           -> -                           because stopped: incident.told
        15:59  stopped           -> -
        16:00  stopped           -> ALERT stopped reminder
        16:01  running k1        -> routine, stopped resolved
        """),
    ("an anomaly of v1 that is over is forgotten without a word", ONLY_TROUBLE, """
        12:00  v1 told an anomaly
        12:01  running k1        -> -
        12:02  stopped           -> ALERT stopped opened
        """),
    ("v1 counted a failing status as stopped: after the upgrade it is one trouble, told already", ONLY_TROUBLE, """
        12:00  v1 told an anomaly
        12:01  unknown           -> -                           because unknown: incident.told
        12:02  running k1        -> unknown resolved
        """),
]

RESUME_STORIES = [
    ("the first attempt is immediate, the waits double, AUTORUN is told once an attempt, then it gives up, once", RESUMES, """
        12:00  running k1        -> -
        12:01  stopped           -> resume, AUTORUN             because resume.now
        12:02  stopped           -> -                           because resume.backoff, again 12:16
        12:15  stopped           -> -
        12:16  stopped           -> resume, AUTORUN
        12:45  stopped           -> -
        12:46  stopped           -> resume, AUTORUN
        13:46  stopped           -> resume, AUTORUN
        15:45  stopped           -> -
        15:46  stopped           -> resume, AUTORUN
        15:47  stopped           -> ALERT stopped worse         because resume.gave_up
        15:48  stopped           -> -
        19:46  stopped           -> -
        19:47  stopped           -> ALERT stopped reminder
        02:00  running k2        -> stopped resolved
        02:01  stopped           -> ALERT stopped opened        because resume.gave_up
        02:02  a person starts it
        02:03  stopped           -> resume, AUTORUN
        """),
    ("waits grow to 6 h; autoResumeMaxAttempts 0 never gives up", {**RESUMES, "autoResumeBackoffSeconds": 7200, "autoResumeMaxAttempts": 0}, """
        00:00  stopped           -> resume, AUTORUN
        01:59  stopped           -> -
        02:00  stopped           -> resume, AUTORUN
        05:59  stopped           -> -
        06:00  stopped           -> resume, AUTORUN
        11:59  stopped           -> -
        12:00  stopped           -> resume, AUTORUN
        17:59  stopped           -> -
        18:00  stopped           -> resume, AUTORUN
        00:00  stopped           -> resume, AUTORUN
        """),
    ("a job that moves after an attempt has recovered: told, and the count starts again", RESUMES, """
        12:00  running k1        -> -
        12:01  stopped           -> resume, AUTORUN
        12:02  running k1        -> -                           because stopped: incident.unsure
        12:03  running k2        -> stopped resolved
        12:04  stopped           -> resume, AUTORUN             because resume.now
        """),
    ("a job that comes back and stops again without progress goes on in the same count", {**RESUMES, "autoResumeMaxAttempts": 2}, """
        12:00  running k1        -> -
        12:01  stopped           -> resume, AUTORUN
        12:02  running k1        -> -
        12:03  stopped           -> -                           because resume.backoff
        12:16  stopped           -> resume, AUTORUN
        12:17  running k1        -> -
        12:18  stopped           -> ALERT stopped worse         because resume.gave_up
        """),
    ("without a key a job has recovered when it ran longer than the last back-off", RESUMES, """
        12:00  running           -> -
        12:01  stopped           -> resume, AUTORUN
        12:02  running           -> -
        12:17  running           -> -
        12:18  running           -> stopped resolved
        12:19  stopped           -> resume, AUTORUN
        """),
    ("without a key a shorter run is no recovery", RESUMES, """
        12:00  running           -> -
        12:01  stopped           -> resume, AUTORUN
        12:02  running           -> -
        12:10  stopped           -> -                           because resume.backoff
        12:16  stopped           -> resume, AUTORUN
        12:17  stopped           -> -                           because resume.backoff, again 12:46
        """),
    ("unknown never resumes anything, whatever came before", RESUMES, """
        12:00  unknown           -> ALERT unknown opened        because resume.unknown
        12:01  stopped           -> resume, AUTORUN, unknown resolved
        12:20  unknown           -> ALERT unknown opened        because resume.unknown
        18:00  unknown           -> ALERT unknown reminder      because resume.unknown
        """),
    ("running, completed and idle jobs are not resumed", RESUMES, """
        12:00  running k1        -> -                           because resume.not_stopped
        12:01  completed         -> completed                   because resume.not_stopped
        12:02  idle              -> -                           because resume.not_stopped
        """),
    ("without autoResume a stopped job asks for a person", {}, """
        12:00  stopped           -> ALERT stopped opened        because resume.off
        """),
    ("a job that may write is never resumed", RESUMES, """
        12:00  stopped           -> ALERT stopped opened        because resume.not_read_only
        """, {"risk": "write_local"}),
    ("a disabled job is never resumed", RESUMES, """
        12:00  stopped           -> ALERT stopped opened        because stopped: incident.opened
        """, {"enabled": False}),
    ("a job whose command has changed since its checkpoint is not resumed, and that is said", RESUMES, """
        12:00  stopped changed-command  -> ALERT stopped opened because resume.changed
        """),
    ("in the tick that lost the state nothing is resumed, the next one does", RESUMES, """
        12:00  stopped state-lost  -> -                         because resume.state_lost
        12:01  stopped           -> resume, AUTORUN
        """),
    ("an intention without a result blocks another start until its timeout has passed", RESUMES, """
        12:00  a start begins and its tick dies
        12:00  stopped           -> -                           because resume.acting, stopped: incident.unsure
        12:01  stopped           -> -                           because resume.acting
        12:02  stopped           -> resume, AUTORUN
        """),
    ("attempts go on in quiet hours, and are told", {"autoResume": True}, """
        03:00  stopped           -> resume, AUTORUN
        03:15  stopped           -> resume, AUTORUN
        """),
    ("with the clock set back a wait begins anew from now, and does not last until the old date", RESUMES, """
        12:00  stopped           -> resume, AUTORUN
        12:01  the clock jumps back 300d
        12:01  stopped           -> -                           because resume.backoff
        12:15  stopped           -> -                           because resume.backoff
        12:16  stopped           -> resume, AUTORUN
        """),
    ("giving up outlasts everything but `start`", {**RESUMES, "autoResumeMaxAttempts": 1}, """
        12:00  stopped           -> resume, AUTORUN
        12:01  stopped           -> ALERT stopped worse
        12:02  the clock jumps ahead 400d
        12:02  reboot
        12:03  stopped           -> ALERT stopped reminder      because resume.gave_up
        12:04  running k5        -> stopped resolved
        12:05  stopped           -> ALERT stopped opened        because resume.gave_up
        """),
    ("a job that auto-resume brings back again and again is flapping too, at night as well", {"autoResume": True, **ONLY_TROUBLE}, """
        02:00  running k1        -> -
        02:01  stopped           -> resume, AUTORUN
        02:02  running k2        -> stopped resolved
        02:03  stopped           -> resume, AUTORUN
        02:04  running k3        -> stopped resolved
        02:05  stopped           -> resume, AUTORUN
        02:06  running k4        -> stopped resolved
        02:07  stopped           -> resume, AUTORUN, WARN flapping opened
        02:08  running k5        -> -                           because stopped: incident.flapping
        03:08  running k6        -> flapping resolved
        """),
    ("a job that is completed after an attempt is resolved", RESUMES, """
        12:00  stopped           -> resume, AUTORUN
        12:01  completed         -> completed, stopped resolved
        """),
]

CHECK_STORIES = [
    ("a check runs at the first tick, then on the grid anchored there; missed slots are one late run", {"everySeconds": 3600}, """
        12:10  is it due?        -> due.first
        12:10  scheduled run: exit 0   -> -
        12:11  is it due?        -> due.later, again 13:10
        13:09  is it due?        -> due.later
        13:12  is it due?        -> due.now
        13:12  scheduled run: exit 0   -> -
        14:09  is it due?        -> due.later
        14:10  is it due?        -> due.now
        14:10  scheduled run: exit 0   -> -
        19:50  is it due?        -> due.now
        19:50  scheduled run: exit 0   -> -
        19:51  is it due?        -> due.later, again 20:10
        20:10  is it due?        -> due.now
        """),
    ("a check is not due twice while its last run has no result", {"everySeconds": 60}, """
        12:00  the run begins
        12:05  is it due?        -> due.unfinished
        """),
    ("everySeconds 0 is a check by hand or from the queue", {}, """
        12:00  is it due?        -> due.not_scheduled
        """),
    ("a disabled check is not due", {"everySeconds": 60}, """
        12:00  is it due?        -> due.disabled
        """, {"enabled": False}),
    ("with the clock set back a check waits at most its own period", {"everySeconds": 3600}, """
        12:00  scheduled run: exit 0   -> -
        12:30  the clock jumps back 300d
        12:30  is it due?        -> due.later
        13:30  is it due?        -> due.now
        """),
    ("with the clock set ahead a check is due once", {"everySeconds": 3600}, """
        12:00  scheduled run: exit 0   -> -
        12:30  the clock jumps ahead 300d
        12:30  is it due?        -> due.now
        12:30  scheduled run: exit 0   -> -
        12:31  is it due?        -> due.later
        """),
    ("a good run of a check says nothing", {"everySeconds": 60}, """
        12:00  scheduled run: exit 0   -> -                     because failed: incident.none
        """),
    ("a scheduled check that goes on failing is one incident, closed by the next good run", {"everySeconds": 60}, """
        03:00  scheduled run: exit 3   -> ALERT failed opened
        03:01  scheduled run: exit 4   -> -                     because failed: incident.told
        03:02  scheduled run: exit 0   -> failed resolved
        03:03  scheduled run: exit 0   -> -
        """),
    ("a signal, a timeout and a program that is missing are failures, each its own text", {"everySeconds": 60}, """
        12:00  scheduled run: SIGKILL  -> ALERT failed opened
        12:01  scheduled run: timeout  -> ALERT failed changed
        12:02  scheduled run: missing  -> ALERT failed changed
        12:03  scheduled run: exit 127 -> ALERT failed changed
        12:04  scheduled run: exit 0   -> failed resolved
        """),
    ("a run that has to be killed after its timeout is the same trouble as one that ends by itself", {"everySeconds": 60}, """
        12:00  scheduled run: timeout        -> ALERT failed opened
        12:01  scheduled run: timeout killed -> -
        """),
    ("a good exit code with a line that asks for attention is told, and closed by a run without", {"everySeconds": 60}, """
        12:00  scheduled run: exit 0 says ALERT: disk 91 %  -> ALERT attention opened
        12:01  scheduled run: exit 0 says ALERT: disk 92 %  -> -
        12:02  scheduled run: exit 0 says ALERT: no disk    -> ALERT attention changed
        12:03  scheduled run: exit 0   -> attention resolved
        """),
    ("failing and asking for attention are two things", {"everySeconds": 60}, """
        12:00  scheduled run: exit 1 says ACTION REQUIRED  -> ALERT attention opened, ALERT failed opened
        """),
    ("an unscheduled failure is told each time that somebody asked for the run, and leaves nothing open", {}, """
        12:00  run by hand: exit 3     -> ALERT failed told
        12:01  run by hand: exit 0     -> -
        12:02  run by hand: exit 0 says ALERT: disk  -> ALERT attention told
        """),
    ("a good run by hand closes what a scheduled run opened, a bad one leaves it open", {"everySeconds": 3600}, """
        12:00  scheduled run: exit 3   -> ALERT failed opened
        12:01  run by hand: exit 3     -> ALERT failed told
        12:02  run by hand: exit 0     -> failed resolved
        """),
    ("alertAfter counts runs of a check", {"everySeconds": 60, "alertAfter": 2}, """
        12:00  scheduled run: exit 3   -> -                     because failed: incident.not_yet
        12:01  scheduled run: exit 3   -> ALERT failed opened
        """),
    ("after a success the `after` jobs for success and always are queued", {}, """
        12:00  run by hand: exit 0     -> queue verify, queue clean in 30
        """, FOLLOWED),
    ("after a failure the `after` jobs for failure and always are queued", {}, """
        12:00  run by hand: exit 1     -> ALERT failed told, queue mourn, queue clean in 30
        12:01  run by hand: timeout    -> ALERT failed told, queue mourn, queue clean in 30
        """, FOLLOWED),
    ("success is exit 0, whatever the output asks for", {}, """
        12:00  run by hand: exit 0 says ALERT  -> ALERT attention told, queue verify, queue clean in 30
        """, FOLLOWED),
    ("a muted check runs and queues, and tells at the end of the mute", {"everySeconds": 60}, """
        12:00  a person mutes it for 1h
        12:01  scheduled run: exit 3   -> -                     because muted
        12:02  scheduled run: exit 0   -> -
        13:00  scheduled run: exit 0   -> unmuted (2 held)
        """),
]


class Story(NamedTuple):
    sentence: str
    policy: dict
    text: str
    settings: dict = {}

    @property
    def job(self):
        kind = CHECK if re.search("due|run:|by hand:|run begins", self.text) else LONG
        return ops.make_job({**kind, **self.settings, "policy": self.policy}, {}, 0)

    @property
    def lines(self):
        return [line.strip() for line in self.text.splitlines() if line.strip()]


TABLES = (ROUTINE_STORIES, STALL_STORIES, TROUBLE_STORIES, REMINDER_STORIES, RESUME_STORIES, CHECK_STORIES)
STORIES = [Story(*row) for rows in TABLES for row in rows]

OUTCOMES = {
    "exit": lambda now, word: ops.Outcome(now, now, code=int(word)),
    "SIGKILL": lambda now, word: ops.Outcome(now, now, code=-9),
    "timeout": lambda now, word: ops.Outcome(now, now._replace(awake=now.awake + (305.2 if word else 300.1)), code=-15, timed_out=True, limit=300.0),
    "missing": lambda now, word: ops.Outcome(now, now, failure=ops.Phrase("run.missing", {"program": "check"})),
}


def effect_words(effect):
    """An effect as the stories write it."""
    if isinstance(effect, ops.Resume):
        return "restart" if effect.restart else "resume"
    if isinstance(effect, ops.Enqueue):
        return f"queue {effect.job_id}" + (f" in {effect.delay:g}" if effect.delay else "")
    if effect.telling == "autorun":
        return "AUTORUN"
    if effect.telling == "muted":
        return f"unmuted ({effect.phrase.facts['count']} held)"
    if effect.telling in ("routine", "completed"):
        return effect.telling
    return f"{RANKS[effect.rank]}{effect.kind} {effect.telling}"


def note_words(decision):
    """Keep which reasons and sentences a decision gave, for the test that all of them exist."""
    SEEN["reasons"].update(reason.key for reason in decision.reasons.values())
    SEEN["reasons"].update([decision.memory.reason] if decision.memory.reason else [])
    SEEN["phrases"].update(effect.phrase.key for effect in decision.effects if isinstance(effect, ops.Notify))
    SEEN["phrases"].update(incident.key for incident in decision.memory.incidents.values() if incident.key)


def through_json(memory, now):
    """The memory as the next tick reads it from the state file."""
    return ops.thaw(ops.Memory, json.loads(json.dumps(ops.freeze(memory))), now)


def duration(text):
    return int(text[:-1]) * {"m": 60.0, "h": 3600.0, "d": 86400.0}[text[-1]]


class Stage:
    """Plays a story line by line: a job, its memory, and the clocks of the machine."""

    def __init__(self, job):
        self.job = job
        self.memory = ops.Memory()
        self.wall, self.awake, self.boot, self.local = DAY_ZERO, 500_000.0, "boot-1", 0.0
        self.is_asleep, self.story_time, self.reasons, self.effects = False, None, {}, []

    @property
    def now(self):
        return ops.Instant(self.wall, self.awake, self.boot, int((self.wall + self.local) // 60) % 1440)

    def wait_until(self, clock_text):
        """Time goes on to the next HH:MM; a story's clock ignores the jumps that it tells of."""
        at = int(clock_text[:2]) * 60 + int(clock_text[3:])
        step = 0 if self.story_time is None else (at - self.story_time) % 1440
        self.wall = DAY_ZERO + at * 60.0 if self.story_time is None else self.wall + step * 60.0
        self.story_time = at
        return step * 60.0

    def play(self, line):
        """One line of a story; what came of it as words."""
        clock_text, what = line[:5], line[7:].strip()
        step = self.wait_until(clock_text)
        if what == "asleep until now":
            return []
        self.awake += step
        self.memory = through_json(self.memory, self.wall)
        self.effects, self.reasons = [], {}
        for pattern, method in ACTS:
            found = re.fullmatch(pattern, what)
            if found:
                method(self, *found.groups())
                return [effect_words(effect) for effect in self.effects]
        raise AssertionError(f"no such act: {what}")

    def settle(self, decision):
        note_words(decision)
        self.memory = decision.memory
        self.effects += decision.effects
        self.reasons = {**self.reasons, **decision.reasons}

    def look(self, state, words):
        words = words.split()
        when = self.now
        if words[-1:] == ["ago"]:
            when = when._replace(awake=when.awake - duration(words[-2]))
        pairs = dict(word.split("=") for word in words if "=" in word)
        key = next((word for word in words if re.fullmatch(r"k\d+", word)), "")
        level = next((word for word in words if word in ("warn", "alert")), "ok")
        other = [word for word in words if word not in (key, level, "waiting", "changed-command", "state-lost") and "=" not in word]
        problem = ops.Phrase("run.timeout", {"seconds": "30s"}) if "timeout" in words else ops.Phrase("status.json")
        look = ops.Observation(
            when, state, key=key, pid=int(pairs.get("pid", 0)), run=pairs.get("run", ""), level=level,
            progress={"done": int(key[1:])} if key else {}, message="the job's own words" if level != "ok" else "",
            waiting="waiting" in words, stop_reason=" ".join(other) if state == ops.STOPPED else "",
            problem=problem if state == ops.UNKNOWN else None, resumable="changed-command" not in words,
        )  # fmt: skip
        self.settle(ops.decide_long(self.job, look, self.memory, self.now, "state-lost" in words))
        if any(isinstance(effect, ops.Resume) for effect in self.effects):
            begun = ops.begin_attempt(self.job, look, self.memory, self.now, "marker")
            self.settle(ops.hold_muted(begun, self.now))
            self.memory = ops.end_action(self.memory)

    def run(self, how, ending, word, lines):
        outcome = OUTCOMES[ending](self.now, word)._replace(attention=(lines.encode(),) if lines else ())
        if how == "scheduled run":
            self.memory = ops.take_slot(self.job, self.memory, self.now, "marker")
        self.settle(ops.decide_run(self.job, outcome, self.memory, self.now, REDACT, how == "scheduled run"))

    def ask_due(self):
        self.reasons = {"due": ops.due_reason(self.job, self.memory, self.now)}
        SEEN["reasons"].add(self.reasons["due"].key)

    def begin_run(self):
        self.memory = ops.take_slot(self.job, self.memory, self.now, "marker")

    def jump(self, direction, length):
        self.wall += duration(length) * (1 if direction == "ahead" else -1)

    def jump_locally(self, direction, length):
        self.local += duration(length) * (1 if direction == "ahead" else -1)

    def reboot(self):
        self.boot, self.awake = self.boot + "+", 5.0

    def hold(self):
        self.memory = self.memory._replace(held_at=self.wall)

    def start(self):
        self.memory = ops.wanted_again(self.memory)

    def ack(self, kind):
        incident = self.memory.incidents[kind]._replace(acked_at=self.wall)
        self.memory = self.memory._replace(incidents={**self.memory.incidents, kind: incident})

    def mute(self, length):
        self.memory = self.memory._replace(muted_at=self.wall, muted_for=duration(length))

    def inherit(self):
        self.memory = self.memory._replace(inherited_at=self.wall)

    def die(self):
        look = ops.Observation(self.now, ops.STOPPED)
        begun = ops.begin_attempt(self.job, look, self.memory, self.now, "marker")
        self.memory = begun.memory._replace(attempts=0, attempt_at=0.0, incidents={})


ACTS = [
    (r"(running|completed|stopped|idle|unknown)\b ?(.*)", Stage.look),
    (r"(scheduled run|run by hand): (exit|SIGKILL|timeout|missing) ?(\d+|killed)?(?: says (.*))?", Stage.run),
    (r"is it due\?", Stage.ask_due),
    (r"the run begins", Stage.begin_run),
    (r"the clock jumps (ahead|back) (\w+)", Stage.jump),
    (r"local time jumps (ahead|back) (\w+)", Stage.jump_locally),
    (r"reboot", Stage.reboot),
    (r"a person stops it", Stage.hold),
    (r"a person starts it", Stage.start),
    (r"a person acknowledges (\w+)", Stage.ack),
    (r"a person mutes it for (\w+)", Stage.mute),
    (r"v1 told an anomaly", Stage.inherit),
    (r"a start begins and its tick dies", Stage.die),
]


def as_local_minute(at, stage):
    minute = int((at + stage.local) // 60) % 1440
    return f"{minute // 60:02}:{minute % 60:02}"


def is_given(reason_text, stage):
    """Whether a story's `because` entry (`reason`, `topic: reason` or `again HH:MM`) holds."""
    topic, _, key = reason_text.rpartition(": ")
    if key.startswith("again "):
        return key[6:] in [as_local_minute(reason.again_at, stage) for reason in stage.reasons.values() if reason.again_at]
    return any(reason.key == key for name, reason in stage.reasons.items() if topic in ("", name))


def split_words(text):
    return sorted(part.strip() for part in text.split(",") if part.strip() not in ("", "-"))


def play_story(story):
    """Yields (line, what was expected, what came) of every line of a story that is wrong."""
    stage = Stage(story.job)
    for line in story.lines:
        act, _, expected = line.partition("->")
        told, _, because = expected.partition(" because ")
        if "is it due?" in act:
            told, because = "-", told
        came = sorted(stage.play(act))
        if came != split_words(told):
            yield line, split_words(told), came
        for reason in split_words(because):
            if not is_given(reason, stage):
                yield line, reason, {topic: (given.key, as_local_minute(given.again_at, stage)) for topic, given in stage.reasons.items()}


class TheStoriesHold(unittest.TestCase):
    def play_all(self, rows):
        for story in [Story(*row) for row in rows]:
            with self.subTest(story.sentence):
                wrong = [f"\n  {line}\n    expected {expected}\n    came     {came}" for line, expected, came in play_story(story)]
                if wrong:
                    self.fail("".join(wrong))

    def test_routine_is_told_by_time_by_change_and_not_in_quiet_hours(self):
        self.play_all(ROUTINE_STORIES)

    def test_a_stall_is_awake_time_without_progress(self):
        self.play_all(STALL_STORIES)

    def test_unknown_stopped_held_and_level_are_told_as_they_should(self):
        self.play_all(TROUBLE_STORIES)

    def test_incidents_are_reminded_of_acknowledged_muted_and_inherited(self):
        self.play_all(REMINDER_STORIES)

    def test_automatic_resumes_wait_count_and_give_up(self):
        self.play_all(RESUME_STORIES)

    def test_checks_run_on_their_grid_and_tell_failures(self):
        self.play_all(CHECK_STORIES)

    def test_no_two_stories_have_the_same_sentence(self):
        sentences = [story.sentence for story in STORIES]
        self.assertEqual(len(sentences), len(set(sentences)))


def long_job(policy=None, **settings):
    return ops.make_job({**LONG, **settings, "policy": {**QUIET_NEVER, **ONLY_TROUBLE, **(policy or {})}}, {}, 0)


def check_job(policy=None, **settings):
    return ops.make_job({**CHECK, **settings, "policy": policy or {}}, {}, 0)


def count_a_day(look, job):
    """Tellings of a day of minute ticks in which every look is what `look(minute)` writes."""
    stage, told = Stage(job), []
    for minute in range(1440):
        told += stage.play(f"{minute // 60 % 24:02}:{minute % 60:02}  {look(minute)}")
    return told


class ADayOfTrouble(unittest.TestCase):
    def test_an_unchanged_incident_of_a_day_costs_at_most_five_messages(self):
        for look in ("stopped exit-3", "unknown", "running k1", "running k1 alert", "running k1 warn"):
            with self.subTest(look):
                told = count_a_day(lambda minute, look=look: look, long_job())
                kinds = {words.replace("ALERT ", "").replace("WARN ", "").split()[0] for words in told}
                for kind in kinds:
                    mine = [words for words in told if kind in words.split()]
                    self.assertLessEqual(len(mine), 5, mine)
                self.assertTrue(told)

    def test_an_incident_whose_numbers_change_every_minute_costs_no_more(self):
        self.assertLessEqual(len(count_a_day(lambda minute: f"stopped exit-{minute}", long_job())), 5)

    def test_a_check_that_fails_every_minute_of_a_day_costs_at_most_five_messages(self):
        job = check_job({"everySeconds": 60})
        for ending in (lambda minute: f"exit {minute % 99 + 1}", lambda minute: "timeout" + " killed" * (minute % 7 == 3)):
            told = count_a_day(lambda minute, ending=ending: "scheduled run: " + ending(minute), job)
            self.assertLessEqual(len(told), 5, told)

    def test_a_stopped_job_that_waits_for_its_next_attempt_is_silent(self):
        told = count_a_day(lambda minute: "stopped", long_job({"autoResume": True}))
        self.assertEqual(told.count("AUTORUN"), 5)
        self.assertEqual(told.count("ALERT stopped worse"), 1)
        self.assertLessEqual(len(told), 2 * 5 + 1 + 3)

    def test_a_job_that_flips_all_day_is_told_as_flapping_once_and_once_when_it_settles(self):
        stage, phrases, counts = Stage(long_job()), [], []
        for minute in range(600):
            flips = minute < 360
            stage.play(f"{minute // 60:02}:{minute % 60:02}  " + ("unknown" if flips and minute % 2 else f"running k{minute}"))
            phrases += [effect.phrase.key for effect in stage.effects if isinstance(effect, ops.Notify)]
            counts.append(len(phrases))
        self.assertLessEqual(counts[359], 16, "a message every minute")
        self.assertLessEqual(counts[-1] - counts[359], 2)
        self.assertTrue([key for key in phrases if "flap" in key])

    def test_a_job_that_flips_at_any_pace_costs_few_messages_a_day(self):
        for every, most in ((1, 8), (2, 8), (5, 8), (8, 8), (10, 16), (20, 16), (50, 16), (120, 16)):
            with self.subTest(minutes=every):
                told = count_a_day(lambda minute, every=every: "unknown" if minute // every % 2 else f"running k{minute}", long_job())
                self.assertLessEqual(len(told), most, told)
                self.assertGreaterEqual(len(told), 7, told)

    def test_short_episodes_of_flipping_cost_three_messages_each_once_the_day_has_seen_many(self):
        def look(minute):
            return "unknown" if minute % 120 < 20 and minute % 2 else f"running k{minute}"

        self.assertLessEqual(len(count_a_day(look, long_job())), 8 + 11 * 3)


RESUME_TABLE = [
    # sentence, look, memory, policy, settings, reason
    ("a truly stopped job is resumed", {}, {}, {}, {}, "resume.now"),
    ("not without autoResume", {}, {}, {"autoResume": False}, {}, "resume.off"),
    ("not when it may write locally", {}, {}, {}, {"risk": "write_local"}, "resume.not_read_only"),
    ("not when it may write elsewhere", {}, {}, {}, {"risk": "write_external"}, "resume.not_read_only"),
    ("not when its state is unknown", {"state": ops.UNKNOWN}, {}, {}, {}, "resume.unknown"),
    ("not when it is idle", {"state": ops.IDLE}, {}, {}, {}, "resume.not_stopped"),
    ("not when it is completed", {"state": ops.COMPLETED}, {}, {}, {}, "resume.not_stopped"),
    ("not when a person stopped it", {}, {"held_at": 5.0}, {}, {}, "resume.held"),
    ("not when it gave up", {}, {"gave_up_at": 5.0}, {}, {}, "resume.gave_up"),
    ("not when all attempts are used up", {}, {"attempts": 5, "attempt_at": 5.0}, {}, {}, "resume.gave_up"),
    ("with no limit of attempts it is", {}, {"attempts": 500, "attempt_at": 5.0}, {"autoResumeMaxAttempts": 0}, {}, "resume.now"),
    ("not when its checkpoint is of another command", {"resumable": False}, {}, {}, {}, "resume.changed"),
    ("not while a start has no result", {}, {"action": "start", "action_at": DAY_ZERO - 5, "action_for": 70.0}, {}, {}, "resume.acting"),
    ("after that start's timeout it is", {}, {"action": "start", "action_at": DAY_ZERO - 71, "action_for": 70.0}, {}, {}, "resume.now"),
    ("not inside the first back-off", {}, {"attempts": 1, "attempt_at": DAY_ZERO - 899}, {}, {}, "resume.backoff"),
    ("at its end it is", {}, {"attempts": 1, "attempt_at": DAY_ZERO - 900}, {}, {}, "resume.now"),
    ("not inside the doubled one", {}, {"attempts": 2, "attempt_at": DAY_ZERO - 1799}, {}, {}, "resume.backoff"),
    ("at its end it is as well", {}, {"attempts": 2, "attempt_at": DAY_ZERO - 1800}, {}, {}, "resume.now"),
    ("after 6 h it always is", {}, {"attempts": 90, "attempt_at": DAY_ZERO - 21600}, {"autoResumeMaxAttempts": 99}, {}, "resume.now"),
]


class WhatResumesAJob(unittest.TestCase):
    def test_each_question_has_its_own_reason(self):
        now = ops.Instant(DAY_ZERO, 9.0, "b")
        for sentence, look, memory, policy, settings, reason in RESUME_TABLE:
            with self.subTest(sentence):
                job = ops.make_job({**LONG, **settings, "policy": {"autoResume": True, **policy}}, {}, 0)
                seen = ops.Observation(**{"when": now, "state": ops.STOPPED, **look})
                decision = ops.decide_long(job, seen, ops.Memory(**memory), now)
                self.assertEqual(decision.why("resume"), reason)
                self.assertEqual(any(isinstance(effect, ops.Resume) for effect in decision.effects), reason == "resume.now")

    def test_an_attempt_is_counted_and_saved_before_anything_is_started(self):
        stage = Stage(long_job({"autoResume": True}))
        now = stage.now
        begun = ops.begin_attempt(stage.job, ops.Observation(now, ops.STOPPED), ops.Memory(key="k7"), now, "marker")
        self.assertEqual((begun.memory.attempts, begun.memory.attempt_at, begun.memory.attempt_key), (1, now.at, "k7"))
        self.assertEqual((begun.memory.action, begun.memory.action_id), ("start", "marker"))
        self.assertTrue(ops.is_acting(begun.memory, now))
        self.assertFalse(ops.is_acting(ops.end_action(begun.memory), now))
        later = now._replace(at=now.at + begun.memory.action_for)
        self.assertFalse(ops.is_acting(begun.memory, later), "an intention without a result must not block for ever")

    def test_the_attempt_and_its_limit_are_said(self):
        stage = Stage(long_job({"autoResume": True, "autoResumeMaxAttempts": 3}))
        begun = ops.begin_attempt(stage.job, ops.Observation(stage.now, ops.STOPPED, stop_reason="exit 3"), ops.Memory(attempts=1), stage.now, "m")
        self.assertEqual(begun.effects[0].phrase.facts, {"attempt": 2, "most": 3, "reason": "exit 3"})


class SlotsOfChecks(unittest.TestCase):
    def test_no_slot_of_any_period_runs_twice_or_is_left_out(self):
        for every in (0.25, 1, 7, 60, 99.9, 100.0004, 333.3333, 3600, 86400, 1000000.123456):
            with self.subTest(every=every):
                job = check_job({"everySeconds": every})
                memory, runs, anchor = ops.Memory(), 0, DAY_ZERO + 0.123
                for step in range(400):
                    now = ops.Instant(anchor + step * every / 4 + 0.002 * (step > 0), step * every / 4)
                    memory = through_json(memory, now.at)
                    if ops.due_reason(job, memory, now).key in ("due.first", "due.now"):
                        runs += 1
                        memory = ops.end_action(ops.take_slot(job, memory, now, "marker"))
                self.assertIn(runs, (99, 100, 101) if every < 1 else (100,))

    def test_the_slot_is_taken_before_the_run_begins(self):
        job = check_job({"everySeconds": 60, "runTimeoutSeconds": 20})
        now = ops.Instant(DAY_ZERO)
        taken = ops.take_slot(job, ops.Memory(), now, "marker")
        self.assertEqual((taken.action, taken.action_id, taken.slot_at, taken.anchor_at), ("run", "marker", DAY_ZERO, DAY_ZERO))
        self.assertGreaterEqual(taken.action_for, 20.0)
        self.assertEqual(ops.due_reason(job, ops.end_action(taken), now).key, "due.later")


class EveryWordHasItsRow(unittest.TestCase):
    """Whatever judgement can say, silence included, is a row of MESSAGES."""

    def test_every_reason_and_every_phrase_that_came_up_is_a_row(self):
        for story in STORIES:
            list(play_story(story))
        self.wander(1500)
        for name, keys in SEEN.items():
            self.assertGreater(len(keys), 8)
            self.assertEqual(sorted(keys - set(ops.MESSAGES)), [], name)

    def wander(self, steps):
        """Looks at random, so that combinations come up that no story tells."""
        rng = random.Random(20240229)
        stage = None
        for step in range(steps):
            if step % 50 == 0:
                policy = {
                    "autoResume": rng.random() < 0.7, "onStall": rng.choice(["alert", "restart"]), "stallSeconds": rng.choice([0, 600]),
                    "alertAfter": rng.choice([1, 2]), "reportWhileRunning": rng.random() < 0.5, "alertRepeatSeconds": rng.choice([0, 900]),
                    "autoResumeMaxAttempts": rng.choice([1, 3]),
                }  # fmt: skip
                stage = Stage(long_job(policy, **rng.choice([{}, STOPPABLE, FOLLOWED])))
                clock = rng.randrange(1440)
            clock = (clock + rng.choice([1, 1, 5, 60])) % 1440
            act = rng.choice(["running k1", "running k2 alert", "running", "running k1 waiting", "stopped", "stopped x", "unknown", "completed",
                              "idle", "a person stops it", "a person starts it", "a person mutes it for 1h", "reboot"])  # fmt: skip
            stage.play(f"{clock // 60:02}:{clock % 60:02}  {act}")

    def test_every_row_that_the_source_names_exists(self):
        """`say("…")`, `Phrase("…")`, `Reason("…")` with a literal, or with a choice of literals."""
        missing = []
        for node in ast.walk(ast.parse(SCRIPT.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name == "first_reason":
                missing += [(row.lineno, word) for row in node.args for word in literals(row.elts[1]) if word not in ops.MESSAGES]
            if name not in ("say", "Phrase", "Reason"):
                continue
            key = node.args[1] if name == "say" and isinstance(node.func, ast.Name) and len(node.args) > 1 else node.args[0]
            missing += [(node.lineno, word) for word in literals(key) if word not in ops.MESSAGES]
        self.assertEqual(missing, [])

    def test_every_look_gives_a_reason_for_its_report_and_its_resume(self):
        job = long_job()
        now = ops.Instant(DAY_ZERO, 5.0, "b")
        for state in (ops.RUNNING, ops.COMPLETED, ops.STOPPED, ops.IDLE, ops.UNKNOWN):
            decision = ops.decide_long(job, ops.Observation(now, state), ops.Memory(), now)
            self.assertLessEqual({"report", "resume", "unknown", "stopped", "stalled", "level"}, set(decision.reasons))
            self.assertIn(decision.memory.reason, ops.MESSAGES)

    def test_every_notification_names_facts_that_its_sentence_has_holes_for(self):
        for story in STORIES:
            stage = Stage(story.job)
            for line in story.lines:
                stage.play(line.partition("->")[0])
                for effect in stage.effects:
                    if isinstance(effect, ops.Notify):
                        holes = set(re.findall(r"\{(\w+)\}", ops.MESSAGES[effect.phrase.key][0]))
                        self.assertLessEqual(holes, set(effect.phrase.facts), story.sentence)


def literals(node):
    """The texts that an expression can be, as far as its syntax tells."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.IfExp):
        return literals(node.body) + literals(node.orelse)
    return []


class IdentityOfTexts(unittest.TestCase):
    SAME = [
        ("exit code 3", "exit code 44"), ("stalled for 1h", "stalled for 1h 1m"), ("took 5m", "took 5m 5s"), ("59m 30s", "2d 3h"),
        ("disk 91 %", "disk 9 %"), ("at 12:00", "at 3:15"), ("load 1.5", "load 12.25"),
    ]  # fmt: skip
    DIFFERENT = [("disk full", "no disk"), ("exit code 3", "signal 3"), ("a", "b"), ("", "x")]

    def test_numbers_and_durations_do_not_make_a_text_different(self):
        for one, other in self.SAME:
            self.assertEqual(ops.masked_digits(one), ops.masked_digits(other), (one, other))

    def test_other_words_do(self):
        for one, other in self.DIFFERENT:
            self.assertNotEqual(ops.masked_digits(one), ops.masked_digits(other), (one, other))


if __name__ == "__main__":
    unittest.main()
