# An image of the static binary and nothing else: no shell, no root, and all that is written is in the volume.
# `deploy/container/build` compiles the binary and puts it where this expects it.
FROM scratch
COPY live-likes /live-likes
COPY --chown=65532:65532 data /data
USER 65532:65532
WORKDIR /data
VOLUME /data
ENV LIVE_LIKES_ADDR=0.0.0.0:3000 LIVE_LIKES_DB=/data/likes.db
EXPOSE 3000
HEALTHCHECK --interval=30s --timeout=6s --start-period=5s CMD ["/live-likes", "health", "http://127.0.0.1:3000"]
ENTRYPOINT ["/live-likes"]
