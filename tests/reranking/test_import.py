"""The reranker costs nothing before it is used."""

import subprocess
import sys


def test_importing_and_making_it_loads_no_torch():
    code = (
        "import sys\n"
        "from llama_index_multimodal_rerank import Phi3VisionRerank, LocalPhi3Vision, build_sheet\n"
        "Phi3VisionRerank(top_n=3)\n"
        "print(sorted({'torch', 'transformers', 'timm'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there():
    import llama_index_multimodal_rerank as package

    for name in package.__all__:
        assert getattr(package, name) is not None
