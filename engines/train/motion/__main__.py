from motion.train import main

main()
