#!/bin/sh
# Brings databases, accounts and the pool up to date; safe to repeat.
set -eu

airflow db migrate

account() {  # role, login, password; the password goes by stdin, where no process list shows it
  printf '%s\n%s\n' "$3" "$3" | airflow users create --role "$1" --username "$2" \
    --firstname "$1" --lastname Nightshift --email "$2@nightshift.invalid"
}
account Admin admin "$ADMIN_PASSWORD"
account Op operator "$OP_PASSWORD"
account Viewer viewer "$VIEWER_PASSWORD"

airflow pools set nightshift "$POOL_SLOTS" "Tasks that score, weighed by their declaration's resources"
nightshift migrate
