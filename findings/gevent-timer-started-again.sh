#!/usr/bin/env bash
# A `gevent.Timeout` that is cancelled and started again: by libev it has only the time that was left, by libuv all of it.
#
# `cancel` says that a timeout can be started again, and `start` counts its seconds from there. On libev, the default but for
# Windows, stopping keeps what is left (reported as gevent issue 1890 in 2022). One that has fired has nothing
# left: every later `start` fires at once, so that code which uses one Timeout for each try fails all tries after the first
# that was late. Timers of the loop, `loop.timer(seconds)`, are the same. On libuv each start has the full time.
# Times are given to the nearest half second.
# Seen on 2026-11-29 with gevent 26.9.0 and cffi 2.1.1 (which libuv needs), Python 3.11, Linux. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check gevent==26.9.0 cffi==2.1.1

cat >again.py <<'PY'
import time
import gevent, gevent.event


def timeout_fires(timeout):
    began = time.monotonic()
    timeout.start()
    try:
        gevent.sleep(2)
    except gevent.Timeout:
        return round((time.monotonic() - began) * 2) / 2
    finally:
        timeout.cancel()


def timer_fires(timer):
    fired, began = gevent.event.Event(), time.monotonic()
    timer.start(fired.set)
    fired.wait(2)
    timer.stop()
    return round((time.monotonic() - began) * 2) / 2


loop = gevent.get_hub().loop
fired, cancelled, timer = gevent.Timeout(1), gevent.Timeout(1), loop.timer(1)
cancelled.start()
gevent.sleep(0.5)
cancelled.cancel()
print(type(loop).__module__)
print("Timeout(1) that was cancelled after 0.5:", timeout_fires(cancelled))
print("Timeout(1), and again:", timeout_fires(fired), timeout_fires(fired))
print("loop.timer(1), and again:", timer_fires(timer), timer_fires(timer))
PY
for loop in libev-cext libuv-cffi; do GEVENT_LOOP=$loop venv/bin/python again.py; done | tee seen.txt
diff seen.txt - <<'EXPECTED'
gevent.libev.corecext
Timeout(1) that was cancelled after 0.5: 0.5
Timeout(1), and again: 1.0 0.0
loop.timer(1), and again: 1.0 0.0
gevent.libuv.loop
Timeout(1) that was cancelled after 0.5: 1.0
Timeout(1), and again: 1.0 1.0
loop.timer(1), and again: 1.0 1.0
EXPECTED
