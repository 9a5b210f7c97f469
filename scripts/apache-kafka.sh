#!/bin/bash
# Apache Kafka for tests, one KRaft node from Maven Central.
#   apache-kafka.sh fetch          get the libraries into .cache; 1 when that is not possible here
#   apache-kafka.sh version        print which one
#   apache-kafka.sh run PORT DIR   run it in the foreground; DIR takes its log and topics
set -euo pipefail
version=3.9.1
cache=$PWD/.cache/apache-kafka-$version

fetch() {
    [ -f "$cache/complete" ] && return 0
    command -v mvn >/dev/null || { echo "Apache Kafka: no mvn here" >&2; return 1; }
    command -v java >/dev/null || { echo "Apache Kafka: no java here" >&2; return 1; }
    mkdir -p "$cache"
    cat >"$cache/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>eventd</groupId><artifactId>apache-kafka</artifactId><version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
      <version>$version</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId><artifactId>slf4j-reload4j</artifactId><version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
POM
    timeout 240 mvn -B -q -f "$cache/pom.xml" dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$cache/libs" >"$cache/mvn.log" 2>&1 ||
        { echo "Apache Kafka: Maven Central is not reached ($cache/mvn.log)" >&2; return 1; }
    touch "$cache/complete"
}

run() {
    local port=$1 dir=$2 controller
    controller=$(.venv/bin/python scripts/free_port.py 0)
    mkdir -p "$dir"
    cat >"$dir/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs=$dir/topics
num.partitions=3
num.network.threads=2
num.io.threads=2
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
PROPERTIES
    cat >"$dir/log4j.properties" <<LOG
log4j.rootLogger=WARN, stderr
log4j.appender.stderr=org.apache.log4j.ConsoleAppender
log4j.appender.stderr.target=System.err
log4j.appender.stderr.layout=org.apache.log4j.PatternLayout
log4j.appender.stderr.layout.ConversionPattern=%d %p %c: %m%n
LOG
    local java=(java -Xms128m -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1
        -Dlog4j.configuration="file:$dir/log4j.properties" -cp "$cache/libs/*")
    "${java[@]}" kafka.tools.StorageTool format --ignore-formatted \
        -t "$("${java[@]}" kafka.tools.StorageTool random-uuid)" -c "$dir/server.properties"
    exec "${java[@]}" kafka.Kafka "$dir/server.properties"
}

case "${1:-}" in
fetch) fetch ;;
version) echo "$version" ;;
run) run "$2" "$3" ;;
*) echo "usage: $0 fetch | version | run PORT DIR" >&2; exit 2 ;;
esac
