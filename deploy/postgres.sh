#!/bin/sh
# Logins and databases, when PostgreSQL's data folder is new; every login sees its own databases only.
set -eu

psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
\getenv airflow AIRFLOW_DB_PASSWORD
\getenv celery CELERY_DB_PASSWORD
\getenv owner NIGHTSHIFT_DB_PASSWORD
\getenv analyst ANALYST_DB_PASSWORD
\getenv reporter REPORTER_DB_PASSWORD

create role airflow login password :'airflow';
create role celery login password :'celery';
create role nightshift_owner login password :'owner';
create role nightshift_analyst login password :'analyst';
create role nightshift_reporter login password :'reporter';
create role nightshift_requester nologin;
alter role nightshift_analyst set default_transaction_read_only = on;
alter role nightshift_analyst set statement_timeout = '5min';
alter role nightshift_analyst set idle_in_transaction_session_timeout = '10min';
alter role nightshift_reporter set default_transaction_read_only = on;
alter role nightshift_reporter set statement_timeout = '1min';

create database airflow owner airflow;
create database celery owner celery;
create database warehouse owner nightshift_owner;
create database registry owner nightshift_owner;
revoke all on database postgres, template1, airflow, celery, warehouse, registry from public;
grant connect on database warehouse to nightshift_analyst, nightshift_reporter, nightshift_requester;
SQL
