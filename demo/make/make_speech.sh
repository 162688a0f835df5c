#!/bin/sh
# Speak the demo text with Debian's festival and the voice cmu_us_slt_arctic_hts: make_speech.sh [OUT.flac]
# Needs: apt-get install festival festvox-us-slt-hts ffmpeg
set -eu
out=${1:-speech.flac}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/say.scm" <<'SCM'
(voice_cmu_us_slt_arctic_hts)
(define (say text file)
  (utt.save.wave (utt.synth (eval (list 'Utterance 'Text text))) file 'riff))
(say "Hello, and welcome. Every word that you hear was spoken by a computer, and every picture that you see was drawn by one." "one.wav")
(say "Now watch my lips. They open wide for father, they are round for you, and they meet for maybe, people, and beam." "two.wav")
(say "And when I stop speaking, my mouth stops too." "three.wav")
SCM
(cd "$work" && festival -b say.scm)
# 1.1 s and 0.7 s of silence between the sentences, half a second at either end.
ffmpeg -v error -y -i "$work/one.wav" -i "$work/two.wav" -i "$work/three.wav" -filter_complex "
  [0]silenceremove=start_periods=1:start_threshold=-50dB,areverse,silenceremove=start_periods=1:start_threshold=-50dB,areverse,adelay=500,apad=pad_dur=1.1[a];
  [1]silenceremove=start_periods=1:start_threshold=-50dB,areverse,silenceremove=start_periods=1:start_threshold=-50dB,areverse,apad=pad_dur=0.7[b];
  [2]silenceremove=start_periods=1:start_threshold=-50dB,areverse,silenceremove=start_periods=1:start_threshold=-50dB,areverse,apad=pad_dur=0.5[c];
  [a][b][c]concat=n=3:v=0:a=1,highpass=f=60,volume=1.8,aresample=48000" \
  -ac 1 -sample_fmt s16 -map_metadata -1 -fflags +bitexact -flags:a +bitexact -compression_level 12 "$out"
