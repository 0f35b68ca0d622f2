"""The embedded model: its properties and its place in the package."""

from __future__ import annotations

from sftchat.engine import Request, collect
from sftchat.inference.local import TransformersEngine
from sftchat.inference.open import load_engine
from sftchat.models.reference import embedded_folder
from sftchat.templates.parity import check_parity
from sftchat.types import Message, Reply, SamplingParams


def test_the_model_is_small_and_passes_the_parity_proof() -> None:
    engine = load_engine("sftchat:nano", {})

    assert isinstance(engine, TransformersEngine)
    assert (embedded_folder() / "model.safetensors").stat().st_size < 20_000_000
    failed = [check.name for check in check_parity(engine.loaded.renderer, engine.loaded.stop_ids) if not check.passed]
    assert failed == ["can be trained on calls of tools"]
    assert engine.loaded.renderer.name == "chatml"


def test_the_model_copies_text_and_stops() -> None:
    engine = load_engine("sftchat:nano", {})
    request = Request("r", (Message(role="user", content="请重复：天地玄黄"),), sampling=SamplingParams(max_new_tokens=20))

    ((_, reply),) = collect(engine, [request])

    assert isinstance(reply, Reply)
    assert (reply.text, reply.finish_reason) == ("天地玄黄", "stop")


def test_every_common_character_is_one_token() -> None:
    engine = load_engine("sftchat:nano", {})
    assert isinstance(engine, TransformersEngine)
    everyday = "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方后多定行学法所民得经十三之进着等部度家电力里如水化高自二理起小物现实加量都两体制机当使点从业本去把性好应开它合还因由其些然前外天政四日那社义事平形相全表间样与关各重新线内数正心反你明看原又么利比或但质气第向道命此变条只没结解问意建月公无系军很情者最立代想已通并提直题党程展五果料象员革位入常文总次品式活设及管特件长求老头基资边流路级少图山统接知较将组见计别她手角期根论运农指几九区强放决西被干做必战先回则任取据处队南给色光门即保治北造百规热领七海口东导器压志世金增争济阶油思术极交受联什认六共权收证改清己美再采转更单风切打白教速花带安场身车例真务具万每目至达走积示议声报斗完类八离华名确才科张信马节话米整空元况今集温传土许步群广石记需段研界拉林律叫且究观越织装影算低持音众书布复容儿须际商非验连断深难近矿千周委素技备半办青省列习响约支般史感劳便团往酸历市克何除消构府称太准精值号率族维划选标写存候毛亲快效斯院查江型眼王按格养易置派层片始却专状育厂京识适属圆包火住调满县局照参红细引听该铁价严"

    split = [character for character in everyday if len(engine.loaded.renderer.tokenizer.encode(character, add_special_tokens=False)) != 1]

    assert split == []
