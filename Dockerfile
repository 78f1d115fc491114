# foreman in a container: no shell, no package manager, no root.
#
#   docker build --tag foreman .
#   docker run --name foreman --publish 8080:8080 --add-host host.docker.internal:host-gateway --stop-timeout 40 \
#     --volume foreman:/var/lib/foreman --env FOREMAN_AUTH_TOKEN=correct-horse-battery foreman
#
# It listens on all addresses of the container and therefore does not start without a token. FOREMAN_AUTH_TOKEN_FILE names a
# file with the token, such as a mounted secret. Clients send the same token. `docker exec foreman /opt/foreman/bin/foreman ps`
# needs it in FOREMAN_TOKEN only if it came from a file. See docs/running.md.

# Both stages have the same Debian and Python: Debian 13, with Python 3.13 in /usr/bin.
FROM debian:13-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv python3-pip
WORKDIR /build
RUN python3 -m venv --without-pip /opt/foreman
ENV PIP_PYTHON=/opt/foreman/bin/python3 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements/run.txt requirements/run.txt
RUN python3 -m pip install --require-hashes --requirement requirements/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN python3 -m pip wheel --no-deps --no-build-isolation --wheel-dir dist .
RUN python3 -m pip install --no-deps --no-index dist/ollama_foreman-*.whl
# The directory of the job database; a volume takes its owner and permissions from it.
RUN mkdir -m 0700 /opt/foreman-jobs
# Remove packages that are only needed for the build.
RUN python3 -m pip uninstall --yes hatchling editables pathspec pluggy tomlkit trove-classifiers

FROM gcr.io/distroless/python3-debian13:nonroot
COPY --from=build /opt/foreman /opt/foreman
COPY --from=build --chown=65532:65532 /opt/foreman-jobs /var/lib/foreman
VOLUME ["/var/lib/foreman"]
# Ollama on the host that runs the container; 127.0.0.1 would be the container itself.
ENV FOREMAN_LISTEN=tcp:8080 \
    FOREMAN_TARGET_URL=http://host.docker.internal:11434 \
    FOREMAN_DB_PATH=/var/lib/foreman/foreman.db
EXPOSE 8080
# Running responses finish within FOREMAN_DRAIN_TIMEOUT (30 s). Docker kills the container after 10 s unless `--stop-timeout 40` is given
# (compose: `stop_grace_period: 40s`, Kubernetes: `terminationGracePeriodSeconds: 40`).
STOPSIGNAL SIGTERM
# Healthy means that foreman answers and is not stopping; an unreachable target is no reason to restart foreman.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
    CMD ["/opt/foreman/bin/python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["/opt/foreman/bin/foreman"]
CMD ["serve"]
