# cluster.sh - a PostgreSQL server of a script's own, without a port. To be sourced by bash with `set -e`:
#
#   cluster_start DIRECTORY [OPTION OF INITDB...] <<<'LINES OF postgresql.conf'
#   cluster_stop          also where it has never started: for the script's trap
#
# DIRECTORY is there and stays the script's to remove: the cluster is DIRECTORY/data, the server's log DIRECTORY/log, its one door a
# socket in DIRECTORY, which PGHOST then names; the superuser is postgres. $bin holds the server's programs. As root the server runs
# as the account postgres, which it will not do as root.
bin=$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
bin=${bin:-$(pg_config --bindir)}
cluster=
as_server=()
[ "$(id -u)" != 0 ] || as_server=(runuser -u postgres --)

cluster_start() {
	cluster=$1
	shift
	[ "$(id -u)" != 0 ] || chown postgres "$cluster"
	(cd "$cluster" && "${as_server[@]}" "$bin/initdb" -D "$cluster/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 "$@") \
		>"$cluster/initdb.log" 2>&1 || { cat "$cluster/initdb.log" >&2 && exit 2; }
	{
		echo "listen_addresses = ''"
		echo "unix_socket_directories = '$cluster'"
		cat
	} >>"$cluster/data/postgresql.conf"
	(cd "$cluster" && "${as_server[@]}" "$bin/pg_ctl" -D "$cluster/data" -l "$cluster/log" -w -s start)
	unset PGPORT PGSERVICE PGOPTIONS PGPASSWORD PGDATABASE
	export PGHOST=$cluster PGUSER=postgres
}

cluster_stop() {
	[ -z "$cluster" ] || "${as_server[@]}" "$bin/pg_ctl" -D "$cluster/data" -m immediate -w -s stop >/dev/null 2>&1 || true
}
