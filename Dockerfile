# Nightshift and Airflow, as the lock file pins them. The install steps are .ci/image's.
FROM python:3.12-slim AS build
WORKDIR /source
COPY . .
RUN .ci/image /opt/nightshift

FROM python:3.12-slim
RUN useradd --uid 50000 --no-create-home --home-dir /srv/nightshift nightshift \
    && mkdir -p /srv/nightshift/store /srv/nightshift/logs /srv/nightshift/home /srv/nightshift/airflow \
    && chown -R nightshift: /srv/nightshift
COPY --from=build /opt/nightshift /opt/nightshift
ENV PATH=/opt/nightshift/venv/bin:$PATH
WORKDIR /srv/nightshift
USER 50000
CMD ["nightshift", "--help"]
