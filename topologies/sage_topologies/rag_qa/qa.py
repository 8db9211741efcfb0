import time
from sage import LocalEnvironment, load_config
from sage.operators import DenseRetriever, OpenAIGenerator, QAPromptor
from sage_connectors import FileSource, TerminalSink

config = load_config("config.yaml")
env = LocalEnvironment("qa")
env.set_memory(config=None)
(env.from_source(FileSource, config["source"])
    .map(DenseRetriever, config["retriever"])
    .map(QAPromptor, config["promptor"])
    .map(OpenAIGenerator, config["generator"])
    .sink(TerminalSink, config["sink"]))
try:
    env.submit()
    env.run_once()
    time.sleep(5)
    env.stop()
finally:
    env.close()
