# docker build -t weft .
FROM python:3.11-slim AS build
RUN python -m venv /opt/weft
WORKDIR /src
# Only what is installed: a change of a test or a document builds nothing anew.
COPY setup.cfg pyproject.toml constraints.txt README.md LICENSE ./
COPY matrix matrix
COPY config config
COPY storage storage
COPY homeserver homeserver
COPY federation federation
COPY appservices appservices
RUN /opt/weft/bin/pip install --no-cache-dir -c constraints.txt .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/weft --create-home weft
COPY --from=build /opt/weft /opt/weft
ENV PATH=/opt/weft/bin:$PATH PYTHONUNBUFFERED=1
USER weft
WORKDIR /var/lib/weft
VOLUME /var/lib/weft
EXPOSE 8008 9108
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD \
    ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9108/ready', timeout=4)"]
# SIGTERM, the default, lets the server finish what it is doing.
ENTRYPOINT ["weft"]
CMD ["serve", "--config", "/etc/weft/homeserver.yaml"]
