# shellcheck shell=bash # sourced: programs that go on running, found again and ended by process id, never by name
# A pid file says "PID START-TIME", for numbers are given out again. $RUN is the folder for them, $LOGS for their output.

# started_at PID: when it began, in the kernel's ticks; nothing where there is no such process
started_at() {
  # the 22nd field; the 2nd is a name in brackets that may have blanks in it
  sed 's/.*) //' "/proc/$1/stat" 2> /dev/null | cut -d' ' -f20
}

# start NAME COMMAND...: in a session of its own, without our locks
start() {
  local name=$1
  shift
  setsid "$@" < /dev/null > "$LOGS/$name.log" 2>&1 9>&- &
  echo "$! $(started_at $!)" > "$RUN/$name.pid"
}

running() {
  local pid start
  [ -s "$RUN/$1.pid" ] || return 1
  read -r pid start < "$RUN/$1.pid"
  [ -n "$start" ] && [ "$(started_at "$pid")" = "$start" ]
}

# stop NAME [SECONDS]: SIGTERM, then SIGKILL
stop() {
  local pid signal
  if running "$1"; then
    read -r pid _ < "$RUN/$1.pid"
    for signal in TERM KILL; do
      kill -"$signal" "$pid" 2> /dev/null || true
      within "${2:-10}" gone "$1" && break
    done
  fi
  rm -f "$RUN/$1.pid"
}

gone() { ! running "$1"; }

# within SECONDS COMMAND...: whether it succeeds in time
within() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $deadline ] || return 1
    sleep 0.1
  done
}
