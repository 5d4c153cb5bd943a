#!/bin/bash
# Opens psql on the quick start's database, as its superuser.
#
#   examples/psql.sh [ARGUMENTS OF psql]
#
#   examples/psql.sh -c "SELECT * FROM chat.messages"
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib.sh"

[ -S "$state/postgres/socket/.s.PGSQL.5432" ] || die "no database is running in $state: run examples/quickstart.sh first"
exec psql -h "$state/postgres/socket" -U postgres -d chat "$@"
