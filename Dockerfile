# The daemon in one image. Not built by the tests: no engine runs where they run.
FROM python:3.11-slim-bookworm

WORKDIR /opt/eventd
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY eventd eventd
COPY triggers triggers
RUN pip install --no-cache-dir -c constraints.txt .

# Instances are isolated with namespaces, which needs CAP_SYS_ADMIN (compose.yaml gives it).
# Without it the daemon falls back to a weaker level; `eventd doctor` says which and why.
VOLUME /data
EXPOSE 9980
ENV EVENTD_DATA=/data EVENTD_LISTEN=0.0.0.0:9980 EVENTD_LOG_FORMAT=json
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9980/readyz', timeout=2)"]

# The published port is plain HTTP; put TLS before it, or give EVENTD_TLS_CERT and EVENTD_TLS_KEY.
ENTRYPOINT ["eventd"]
CMD ["serve", "--insecure-http"]
