# shellcheck shell=bash
# What peers that are made of several daemons share: processes, ports, secrets. Sourced
# by them, after they have set $state, the directory that they keep things in.

# fail MESSAGE...: ends with the name of the peer before it.
fail() {
	echo "${0##*/}: $*" >&2
	exit 1
}

# start_time PID: a process is its number and when it started, so that a later one
# with its number is never taken for ours.
start_time() { [ -r "/proc/$1/stat" ] && sed 's/.*) //' "/proc/$1/stat" | cut -d' ' -f20; }

alive() { # NAME
	local pid since
	read -r pid since 2>/dev/null <"$state/$1.pid" || return 1
	[ "$(start_time "$pid")" = "$since" ]
}

daemon() { # NAME COMMAND...: in a process group of its own
	local name=$1
	shift
	setsid "$@" >>"$state/$name.log" 2>&1 </dev/null &
	echo "$! $(start_time $!)" >"$state/$name.pid"
}

end() { # NAME: the process with its workers
	local pid i
	alive "$1" || { rm -f "$state/$1.pid"; return 0; }
	read -r pid _ <"$state/$1.pid"
	kill -TERM -- "-$pid" 2>/dev/null || true
	for i in $(seq 100); do
		grep -q ') [^Z]' "/proc/$pid/stat" 2>/dev/null || break # ended, if perhaps not waited for
		sleep 0.1
	done
	kill -KILL -- "-$pid" 2>/dev/null || true
	rm -f "$state/$1.pid"
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

used=
free_port() { # VARIABLE: a loopback port nobody listens on
	local p
	while :; do
		p=$((RANDOM % 12000 + 20000))
		case " $used " in *" $p "*) continue ;; esac
		if ! listens "$p"; then
			used="$used $p"
			printf -v "$1" %s "$p"
			return
		fi
	done
}

random() { od -An -N 16 -tx1 /dev/urandom | tr -d ' \n'; }

secret() { # NAME: made once for a state directory
	[ -s "$state/secret-$1" ] || random >"$state/secret-$1"
	cat "$state/secret-$1"
}

# value FILE KEY: of a file with key=value lines
value() { sed -n "s/^$2=//p" "$1"; }

# secret_lines are not for the terminal.
secret_lines='^[a-z0-9_]*\(key\|secret\)='

show() {
	grep -v "$secret_lines" "$state/credentials"
	echo "credentials=$state/credentials"
}
