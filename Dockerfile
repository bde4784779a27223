# fullback serve, as an image: docker build -t fullback-serve . && docker run --rm -p 127.0.0.1:8018:8018 \
#     -v "$PWD/models:/models:ro" fullback-serve digits=/models/digits.safetensors
FROM python:3.13-slim AS build
COPY . /source
RUN python -m venv /opt/fullback && /opt/fullback/bin/pip install --no-cache-dir '/source[serve]'

FROM python:3.13-slim
COPY --from=build /opt/fullback /opt/fullback
RUN useradd --create-home --uid 10001 fullback
USER fullback
ENV PATH=/opt/fullback/bin:$PATH PYTHONUNBUFFERED=1 FULLBACK_CACHE_DIR=/home/fullback/cache
# The kernels are compiled for the CPU of the machine that builds; another one compiles again, in 20 s.
RUN fullback warmup
EXPOSE 8018
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-c", \
    "import urllib.request as r; r.urlopen('http://127.0.0.1:8018/health', timeout=4)"]
ENTRYPOINT ["fullback", "serve", "--host", "0.0.0.0", "--port", "8018"]
